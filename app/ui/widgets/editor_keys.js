// The editor's keys: which press does what. Nothing is taken from input fields and open dialogs.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const NUM_DIGIT_CLASSES = 9; // 1 to 9; with shift the nine after them

/** Whether keys go into this element as text or choices. */
export function isTyping(node) {
  return node instanceof HTMLElement && (node.isContentEditable || node.matches("input:not([type=checkbox]), textarea, select"));
}

function isPressable(node) {
  return node instanceof HTMLElement && node.matches("button, a, input, summary");
}

/**
 * Listen until `signal` is aborted.
 * @param {Object} actions what the keys do, by name; see _keyActions of the editor
 */
export function listenToKeys(actions, signal) {
  const plain = plainKeys(actions);
  document.addEventListener("keydown", (event) => onKeyDown(event, actions, plain), { signal });
  document.addEventListener("keyup", (event) => onKeyUp(event, actions), { signal });
}

function onKeyDown(event, actions, plain) {
  const isElsewhere = isTyping(event.target) || document.querySelector("dialog[open]");
  if (isElsewhere || event.defaultPrevented || event.altKey || !actions.isReady()) return;
  const isHandled = event.ctrlKey || event.metaKey ? onCommand(event, actions) : onPlainKey(event, actions, plain);
  if (isHandled) event.preventDefault();
}

function onKeyUp(event, actions) {
  if (!actions.isReady()) return;
  if (event.key === " ") actions.holdPan(false);
  if (event.key.toLowerCase() === "h" && !isTyping(event.target)) actions.hideBoxes(false);
}

/** Keys with Ctrl (or Cmd); true when the key was one of ours. */
function onCommand(event, actions) {
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey && actions.hasSelection()) {
    actions.nudge(...arrow, true);
    return true;
  }
  const commands = {
    z: event.shiftKey ? actions.redo : actions.undo,
    y: actions.redo,
    v: actions.paste,
    // Text that somebody marked on the page is copied by the browser as ever.
    c: window.getSelection().toString() ? null : actions.copy,
  };
  const command = commands[event.key.toLowerCase()];
  command?.();
  return Boolean(command);
}

function onPlainKey(event, actions, plain) {
  // By place on the keyboard: with shift, or on a French keyboard, the digit keys give other characters.
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  if (digit !== undefined && event.key !== "/") {
    onDigit(Number(digit), event.shiftKey, actions);
    return true;
  }
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) {
    actions.nudge(...arrow, false);
    return actions.hasSelection();
  }
  if ([" ", "Enter"].includes(event.key) && isPressable(document.activeElement)) return false;
  const action = plain[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  action?.();
  return Boolean(action);
}

function onDigit(digit, isShifted, actions) {
  if (digit > 0) actions.chooseAt(digit - 1 + (isShifted ? NUM_DIGIT_CLASSES : 0));
  else if (isShifted) actions.fullSize();
  else actions.fit();
}

function plainKeys(actions) {
  const [back, on] = [() => actions.step(-1), () => actions.step(1)];
  return {
    ArrowLeft: back,
    ArrowRight: on,
    a: back,
    d: on,
    Delete: actions.deleteSelected,
    Backspace: actions.deleteSelected,
    Escape: actions.giveUp,
    Enter: actions.acceptSuggestion,
    "[": () => actions.selectBeside(-1),
    "]": () => actions.selectBeside(1),
    "+": actions.zoomIn,
    "=": actions.zoomIn,
    "-": actions.zoomOut,
    "/": actions.findClass,
    "?": actions.help,
    e: actions.toggleEmpty,
    h: () => actions.hideBoxes(true),
    " ": () => actions.holdPan(true),
  };
}
