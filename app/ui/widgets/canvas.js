// A picture with boxes over it: viewer and editor in one class, on two stacked canvases (picture; boxes).
//
// Frames: boxes are float image pixels; the view maps them to CSS pixels of the canvas: css = image * scale + offset.
// Everything is drawn at most once a frame; pointer moves only note where the pointer is.

import { boxArea, boxBetween, committedBox, handleAt, isInside, isOnEdge, movedBox, resizedBox } from "./box_geometry.js";
import { CanvasPainter } from "./canvas_painter.js";

const MARGIN_PX = 14;
const MAX_SCALE = 64;
const FOCUS_SHARE = 0.4; // of the canvas that a box takes when the view goes to it
const MAX_FOCUS_SCALE = 8; // the largest zoom that goes there by itself
const HANDLE_REACH_PX = 7;
const TOUCH_REACH_PX = 14;
const EDGE_REACH_PX = 4;
const CLICK_PX = 3; // a press that moves less is a click
const PAN_BURST_MS = 250;
const WHOLE = "whole"; // what the view is aimed at, if not at a box

/**
 * @typedef {Object} ShownBox
 * @property {number[]} bbox [x1, y1, x2, y2] in image pixels
 * @property {string} color #rrggbb
 * @property {string} [label] text beside the box; drawn where there is room, always for the hovered and selected box
 * @property {string} [fullLabel] in place of the label while the box is hovered or selected
 * @property {boolean} [isLabelBelow] the label stands under the box, where it covers none of a box in the same place
 * @property {boolean | number[]} [dashed] dashed outline, or the lengths of its dashes and gaps in CSS pixels
 * @property {boolean} [faint] drawn half transparent
 * @property {"cross" | "ring"} [mark] in the upper right corner
 */

export class DetectionCanvas {
  /**
   * @param {HTMLElement} root gets the class a-canvas and the two canvases
   * @param {Object} [options]
   * @param {boolean} [options.editable] draw, move and resize; otherwise dragging pans
   * @param {(bbox: number[]) => void} [options.onDraw] a new box was drawn
   * @param {(index: number, bbox: number[]) => void} [options.onChange] a box was moved or resized
   * @param {(index: number) => void} [options.onSelect] a box was clicked; -1: none
   * @param {(index: number) => void} [options.onHover] the pointer is over this box; -1: none
   * @param {(view: {scale: number, x: number, y: number}) => void} [options.onView] zoomed or panned
   */
  constructor(root, options = {}) {
    this.root = root;
    this.editable = Boolean(options.editable);
    this.callbacks = options;
    this.boxes = [];
    this.selected = -1;
    this.hovered = -1;
    this.drawColor = "#ffffff";
    this.view = { scale: 1, x: 0, y: 0 };
    this._aim = WHOLE;
    this.frameTimes = [];
    this._size = { width: 0, height: 0 };
    this._picture = null;
    this._pointers = new Map();
    this._cursor = null;
    this._gesture = null;
    this._isSpaceHeld = false;
    this._dirty = { picture: true, boxes: true };
    this._frame = 0;
    this._lastPan = 0;
    root.classList.add("a-canvas");
    this._painter = new CanvasPainter(root);
    this.boxCanvas = this._painter.boxCanvas;
    this._listen();
    this._resizing = new ResizeObserver(() => this._resize());
    this._resizing.observe(root);
    this._resize();
  }

  /** Take the listeners off the page; the canvas is not used afterwards. */
  destroy() {
    this._resizing.disconnect();
    this._stopListening.abort();
    cancelAnimationFrame(this._frame);
  }

  /**
   * Show a picture (image element, bitmap or canvas; null for none) of width x height image pixels.
   * With keepView the zoom and place stay as they are.
   */
  setImage(picture, width, height, { keepView = false } = {}) {
    this._cancelGesture();
    this._picture = picture;
    this._size = { width, height };
    this.hovered = -1;
    if (keepView) this._redraw("picture", "boxes");
    else this.fit();
  }

  /** @param {ShownBox[]} boxes drawn in this order; callbacks name them by index */
  setBoxes(boxes) {
    this.boxes = boxes;
    if (this.selected >= boxes.length) this.selected = -1;
    if (this.hovered >= boxes.length) this.hovered = -1;
    this._redraw("boxes");
  }

  /** Select a box by index (-1: none) without calling onSelect. */
  select(index) {
    this.selected = index;
    this._redraw("boxes");
  }

  /** Highlight a box by index (-1: none) without calling onHover. */
  highlight(index) {
    if (this.hovered === index) return;
    this.hovered = index;
    this._redraw("boxes");
  }

  /** Whether a box is being drawn, moved or resized at this moment. */
  get isEditing() {
    return ["draw", "move", "resize"].includes(this._gesture?.kind);
  }

  /** Drop the gesture in progress, leaving the boxes as they were; false if there was none. */
  cancel() {
    const had = this._gesture !== null;
    this._cancelGesture();
    return had;
  }

  /** The whole picture, centered. */
  fit() {
    this._aimAt(WHOLE);
  }

  /** Whether the whole picture is shown, as fit() does. */
  get isFitted() {
    return this._aim === WHOLE;
  }

  /** Zoom by a factor, keeping the image point at `at` (CSS pixels of the canvas; its middle by default) in place. */
  zoomBy(factor, at = { x: this._cssWidth / 2, y: this._cssHeight / 2 }) {
    this.zoomTo(this.view.scale * factor, at);
  }

  /** Zoom to CSS pixels per image pixel, keeping the image point at `at` in place. */
  zoomTo(scale, at = { x: this._cssWidth / 2, y: this._cssHeight / 2 }) {
    const low = Math.min(this._fitScale() / 2, 1);
    const next = Math.min(Math.max(scale, low), MAX_SCALE);
    const { scale: old, x, y } = this.view;
    const ratio = next / old;
    this._setView({ scale: next, x: at.x - (at.x - x) * ratio, y: at.y - (at.y - y) * ratio });
  }

  /** Move the picture by CSS pixels. */
  panBy(dx, dy) {
    this._setView({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  /** Zoom to a box [x1, y1, x2, y2] in image pixels, with its surroundings. */
  focus(bbox) {
    this._aimAt(bbox);
  }

  /** Bring a box into sight, panning as little as needed. */
  reveal(index) {
    const [x1, y1, x2, y2] = this.boxes[index].bbox;
    const { scale, x, y } = this.view;
    const shift = (low, high, size) => (low < 0 ? -low + MARGIN_PX : high > size ? size - high - MARGIN_PX : 0);
    const dx = shift(x1 * scale + x, x2 * scale + x, this._cssWidth);
    const dy = shift(y1 * scale + y, y2 * scale + y, this._cssHeight);
    if (dx || dy) this.panBy(dx, dy);
  }

  /** Image point of CSS pixels of the page. */
  toImage(clientX, clientY) {
    const at = this._toCanvas(clientX, clientY);
    return { x: (at.x - this.view.x) / this.view.scale, y: (at.y - this.view.y) / this.view.scale };
  }

  // ---- view -------------------------------------------------------------------------------------------------------

  _fitScale() {
    const { width, height } = this._size;
    if (!width || !height) return 1;
    const room = (size) => Math.max(size - 2 * MARGIN_PX, 1);
    return Math.min(room(this._cssWidth) / width, room(this._cssHeight) / height, MAX_SCALE);
  }

  /** Bring the whole picture or a box into the middle; until the view is moved it stays there in a canvas of another size. */
  _aimAt(aim) {
    const [x1, y1, x2, y2] = aim === WHOLE ? [0, 0, this._size.width, this._size.height] : aim;
    const scale = aim === WHOLE ? this._fitScale() : this._focusScale(x2 - x1, y2 - y1);
    this._setView({ scale, x: (this._cssWidth - scale * (x1 + x2)) / 2, y: (this._cssHeight - scale * (y1 + y2)) / 2 }, aim);
  }

  _focusScale(width, height) {
    const room = (size, length) => (FOCUS_SHARE * size) / Math.max(length, 1);
    const wanted = Math.min(room(this._cssWidth, width), room(this._cssHeight, height));
    return Math.min(Math.max(wanted, this._fitScale()), MAX_FOCUS_SCALE);
  }

  _setView(view, aim = null) {
    const { width, height } = this._size;
    // Some of the picture always stays in sight, so that nobody gets lost.
    const keep = (offset, size, room) => Math.min(Math.max(offset, 40 - size), room - 40);
    this.view = {
      scale: view.scale,
      x: width ? keep(view.x, width * view.scale, this._cssWidth) : 0,
      y: height ? keep(view.y, height * view.scale, this._cssHeight) : 0,
    };
    this._aim = aim;
    this._redraw("picture", "boxes");
    this.callbacks.onView?.(this.view);
  }

  _resize() {
    const { clientWidth, clientHeight } = this.root;
    if (!clientWidth || !clientHeight) return; // hidden: nothing is seen, and the view is kept
    const [dx, dy] = [(clientWidth - this._cssWidth) / 2, (clientHeight - this._cssHeight) / 2];
    this._painter.resize(clientWidth, clientHeight);
    if (this._aim) this._aimAt(this._aim);
    else this.panBy(dx, dy);
    this._redraw("picture", "boxes");
    this._draw(); // a resized canvas is blank: fill it before the browser shows it
  }

  get _cssWidth() {
    return this._painter.width;
  }

  get _cssHeight() {
    return this._painter.height;
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------

  _redraw(...layers) {
    for (const layer of layers) this._dirty[layer] = true;
    if (!this._frame) this._frame = requestAnimationFrame(() => this._draw());
  }

  _draw() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    const start = performance.now();
    this._applyMove();
    if (this._dirty.picture) this._painter.drawPicture(this._picture, this._size, this.view);
    if (this._dirty.boxes) this._painter.drawBoxes(this._scene());
    this._dirty = { picture: false, boxes: false };
    this.frameTimes.push(performance.now() - start);
    if (this.frameTimes.length > 240) this.frameTimes.shift();
  }

  /** What the painter is to show now. */
  _scene() {
    const { boxes, view, selected, hovered, editable: hasHandles } = this;
    const edited = this.isEditing && this._gesture.bbox ? this._gesture : null;
    const drawn = edited?.kind === "draw" ? { bbox: edited.bbox, color: this.drawColor } : null;
    const moving = edited && !drawn ? edited : null;
    return { boxes, view, selected, hovered, hasHandles, moving, drawn, crosshair: this._crosshair() };
  }

  /** The pointer and the part of the picture in sight, while a press would draw a box or one is being drawn. */
  _crosshair() {
    if (!this.editable || !this._cursor || this._isSpaceHeld) return null;
    const kind = this._gesture?.kind ?? this._target(this._cursor, HANDLE_REACH_PX).kind;
    const { scale, x: left, y: top } = this.view;
    const right = Math.min(left + this._size.width * scale, this._cssWidth);
    const bottom = Math.min(top + this._size.height * scale, this._cssHeight);
    const frame = [Math.max(left, 0), Math.max(top, 0), right, bottom];
    return kind === "draw" && isInside(frame, this._cursor) ? { ...this._cursor, frame } : null;
  }

  // ---- pointer ----------------------------------------------------------------------------------------------------

  _listen() {
    this._stopListening = new AbortController();
    const signal = this._stopListening.signal;
    const on = (target, name, handler, options = {}) => target.addEventListener(name, handler, { signal, ...options });
    on(this.boxCanvas, "pointerdown", (event) => this._pointerDown(event));
    on(this.boxCanvas, "pointermove", (event) => this._pointerMove(event));
    on(this.boxCanvas, "pointerup", (event) => this._pointerUp(event));
    on(this.boxCanvas, "pointercancel", (event) => {
      this._pointers.delete(event.pointerId);
      this._cancelGesture();
    });
    on(this.boxCanvas, "pointerleave", () => {
      if (this._gesture) return;
      this._cursor = null;
      this._setHovered(-1);
      this._redraw("boxes");
    });
    on(this.boxCanvas, "wheel", (event) => this._wheel(event), { passive: false });
    // The middle button would start the browser's own scrolling.
    on(this.boxCanvas, "mousedown", (event) => event.button === 1 && event.preventDefault());
    on(window, "blur", () => this.holdSpace(false));
  }

  /** While space is held, dragging pans. */
  holdSpace(isHeld) {
    if (this._isSpaceHeld === isHeld) return;
    this._isSpaceHeld = isHeld;
    this._setCursor();
    this._redraw("boxes");
  }

  _toCanvas(clientX, clientY) {
    const frame = this.boxCanvas.getBoundingClientRect();
    return { x: clientX - frame.left, y: clientY - frame.top };
  }

  _pointerDown(event) {
    if (event.button > 1 || !this._size.width) return;
    const at = this._toCanvas(event.clientX, event.clientY);
    this.boxCanvas.setPointerCapture(event.pointerId);
    this._pointers.set(event.pointerId, at);
    if (this._pointers.size === 2) {
      this._cancelGesture();
      this._gesture = { kind: "pinch", ...this._pinch() };
      return;
    }
    if (this._gesture) return;
    this._cursor = at;
    const isPan = event.button === 1 || this._isSpaceHeld || !this.editable;
    const reach = event.pointerType === "touch" ? TOUCH_REACH_PX : HANDLE_REACH_PX;
    const target = isPan ? { kind: "pan" } : event.shiftKey ? { kind: "draw" } : this._target(at, reach);
    this._gesture = { ...target, start: at, last: at, startView: { ...this.view }, bbox: null, isDrag: false, button: event.button };
    if (target.index >= 0 && target.index !== this.selected) this._choose(target.index);
    this._setCursor();
    this._redraw("boxes");
  }

  /** What a press at a canvas point would do: resize by a handle, move a box, or draw a new one. */
  _target(at, reach) {
    const point = { x: (at.x - this.view.x) / this.view.scale, y: (at.y - this.view.y) / this.view.scale };
    const unit = 1 / this.view.scale;
    const selected = this.boxes[this.selected];
    if (selected) {
      const handle = handleAt(selected.bbox, point, reach * unit);
      if (handle) return { kind: "resize", index: this.selected, handle };
      if (isInside(selected.bbox, point, EDGE_REACH_PX * unit)) return { kind: "move", index: this.selected };
    }
    // A drag from inside another box draws, so that boxes can be drawn over one another; its outline moves it.
    const edge = this._smallest((bbox) => isOnEdge(bbox, point, EDGE_REACH_PX * unit));
    return edge >= 0 ? { kind: "move", index: edge } : { kind: "draw" };
  }

  _smallest(isHit) {
    let best = -1;
    let bestArea = Infinity;
    this.boxes.forEach(({ bbox }, index) => {
      const area = boxArea(bbox);
      if (area < bestArea && isHit(bbox)) {
        best = index;
        bestArea = area;
      }
    });
    return best;
  }

  _pointerMove(event) {
    const at = this._toCanvas(event.clientX, event.clientY);
    if (this._pointers.has(event.pointerId)) this._pointers.set(event.pointerId, at);
    this._cursor = at;
    this._hasMoved = true;
    this._redraw("boxes");
  }

  /** Called once a frame: carry the gesture on to where the pointer is now. */
  _applyMove() {
    if (!this._hasMoved) return;
    this._hasMoved = false;
    const gesture = this._gesture;
    if (!gesture) this._hover();
    else if (gesture.kind === "pinch") this._applyPinch(gesture);
    else if (gesture.kind === "pan") this._applyPan(gesture);
    else this._applyEdit(gesture, this._cursor);
  }

  _hover() {
    if (!this._cursor) return;
    const { scale, x, y } = this.view;
    const point = { x: (this._cursor.x - x) / scale, y: (this._cursor.y - y) / scale };
    this._setHovered(this._smallest((bbox) => isInside(bbox, point, EDGE_REACH_PX / scale)));
    this._setCursor();
  }

  _setHovered(index) {
    if (this.hovered === index) return;
    this.hovered = index;
    this._dirty.boxes = true;
    this.callbacks.onHover?.(index);
  }

  _applyPan(gesture) {
    const [dx, dy] = [this._cursor.x - gesture.last.x, this._cursor.y - gesture.last.y];
    gesture.last = this._cursor;
    gesture.isDrag ||= distance(gesture.start, this._cursor) >= CLICK_PX;
    this.panBy(dx, dy);
  }

  _pinch() {
    const [a, b] = [...this._pointers.values()];
    return { middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 }, spread: Math.max(distance(a, b), 1) };
  }

  _applyPinch(gesture) {
    if (this._pointers.size < 2) return;
    const { middle, spread } = this._pinch();
    this.panBy(middle.x - gesture.middle.x, middle.y - gesture.middle.y);
    this.zoomBy(spread / gesture.spread, middle);
    Object.assign(gesture, { middle, spread });
  }

  _applyEdit(gesture, at) {
    gesture.isDrag ||= distance(gesture.start, at) >= CLICK_PX;
    if (!gesture.isDrag) return;
    const { width, height } = this._size;
    const { scale, x, y } = this.view;
    const [dx, dy] = [(at.x - gesture.start.x) / scale, (at.y - gesture.start.y) / scale];
    const image = (point) => ({ x: (point.x - x) / scale, y: (point.y - y) / scale });
    if (gesture.kind === "draw") gesture.bbox = boxBetween(image(gesture.start), image(at), width, height);
    else if (gesture.kind === "move") gesture.bbox = movedBox(this.boxes[gesture.index].bbox, dx, dy, width, height);
    else gesture.bbox = resizedBox(this.boxes[gesture.index].bbox, gesture.handle, dx, dy, width, height);
  }

  _pointerUp(event) {
    if (!this._pointers.delete(event.pointerId)) return;
    const gesture = this._gesture;
    if (!gesture) return;
    if (gesture.kind === "pinch") {
      if (this._pointers.size === 0) this._gesture = null;
      return;
    }
    const at = this._toCanvas(event.clientX, event.clientY);
    this._cursor = at;
    if (this.isEditing) this._applyEdit(gesture, at);
    this._gesture = null;
    if (gesture.kind === "pan") {
      if (!gesture.isDrag && gesture.button === 0 && !this._isSpaceHeld) this._click(at);
    } else if (gesture.isDrag) this._commit(gesture);
    else if (gesture.kind !== "resize") this._click(at);
    this._setCursor();
    this._redraw("boxes");
  }

  _commit(gesture) {
    const bbox = gesture.bbox && committedBox(gesture.bbox, this._size.width, this._size.height);
    if (!bbox) return;
    if (gesture.kind === "draw") {
      this._choose(-1);
      this.callbacks.onDraw?.(bbox);
    } else {
      this.callbacks.onChange?.(gesture.index, bbox);
    }
  }

  /** Select the smallest box under the pointer; clicking again goes on to the next larger one. */
  _click(at) {
    const { scale, x, y } = this.view;
    const point = { x: (at.x - x) / scale, y: (at.y - y) / scale };
    const hits = this.boxes
      .map(({ bbox }, index) => ({ index, bbox }))
      .filter(({ bbox }) => isInside(bbox, point, EDGE_REACH_PX / scale))
      .sort((a, b) => boxArea(a.bbox) - boxArea(b.bbox));
    const place = hits.findIndex(({ index }) => index === this.selected);
    const isAgain = this._lastClick && distance(this._lastClick, at) < CLICK_PX;
    this._lastClick = at;
    if (!hits.length) this._choose(-1);
    else this._choose(place < 0 ? hits[0].index : hits[isAgain ? (place + 1) % hits.length : place].index);
  }

  _choose(index) {
    if (this.selected === index) return;
    this.selected = index;
    this._redraw("boxes");
    this.callbacks.onSelect?.(index);
  }

  _cancelGesture() {
    this._gesture = null;
    this._setCursor();
    this._redraw("boxes");
  }

  _setCursor() {
    const kind = this._gesture?.kind;
    let cursor = this.editable ? "crosshair" : "grab";
    if (kind === "pan") cursor = "grabbing";
    else if (this._isSpaceHeld) cursor = "grab";
    else if (this.editable && this._cursor) {
      const target = this.isEditing ? this._gesture : this._target(this._cursor, HANDLE_REACH_PX);
      if (target.kind === "resize") cursor = target.handle.cursor;
      else if (target.kind === "move") cursor = "move";
    }
    if (this.boxCanvas.style.cursor !== cursor) this.boxCanvas.style.cursor = cursor;
  }

  /** A wheel zooms at the pointer; two fingers on a touchpad (small or sideways steps) pan, pinching zooms. */
  _wheel(event) {
    event.preventDefault();
    if (!this._size.width || this.isEditing) return;
    const unit = event.deltaMode === 1 ? 33 : event.deltaMode === 2 ? 400 : 1;
    const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
    const isBurst = event.timeStamp - this._lastPan < PAN_BURST_MS;
    const isTouchpad = event.deltaMode === 0 && (dx !== 0 || Math.abs(dy) < 30);
    if (!event.ctrlKey && !event.metaKey && (isTouchpad || isBurst)) {
      this._lastPan = event.timeStamp;
      this.panBy(-dx, -dy);
      return;
    }
    const speed = event.ctrlKey && Math.abs(dy) < 30 ? 0.01 : 0.0015;
    const at = this._toCanvas(event.clientX, event.clientY);
    // Wheel events come in whole pixels, pointer events in fractions: the pointer's own place keeps the point still.
    const isHere = this._cursor && distance(this._cursor, at) < 2;
    this.zoomBy(Math.exp(-Math.max(-240, Math.min(240, dy)) * speed), isHere ? this._cursor : at);
  }
}

function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}
