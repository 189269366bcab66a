// Pure geometry of boxes: bbox is [x1, y1, x2, y2] in float image pixels, x1 < x2 and y1 < y2.

/** The eight handles: which edge each one moves in x and y (-1 the low edge, 1 the high edge, 0 none). */
export const HANDLES = [
  { name: "nw", x: -1, y: -1, cursor: "nwse-resize" },
  { name: "n", x: 0, y: -1, cursor: "ns-resize" },
  { name: "ne", x: 1, y: -1, cursor: "nesw-resize" },
  { name: "e", x: 1, y: 0, cursor: "ew-resize" },
  { name: "se", x: 1, y: 1, cursor: "nwse-resize" },
  { name: "s", x: 0, y: 1, cursor: "ns-resize" },
  { name: "sw", x: -1, y: 1, cursor: "nesw-resize" },
  { name: "w", x: -1, y: 0, cursor: "ew-resize" },
];

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value) => Math.round(value * 100) / 100;

/** The box between two points in any order, cut to the image. */
export function boxBetween(a, b, width, height) {
  return [
    clamp(Math.min(a.x, b.x), 0, width),
    clamp(Math.min(a.y, b.y), 0, height),
    clamp(Math.max(a.x, b.x), 0, width),
    clamp(Math.max(a.y, b.y), 0, height),
  ];
}

/** The box moved by (dx, dy), held inside the image with its size kept. */
export function movedBox(bbox, dx, dy, width, height) {
  const [x1, y1, x2, y2] = bbox;
  const stepX = clamp(dx, -x1, Math.max(width - x2, -x1));
  const stepY = clamp(dy, -y1, Math.max(height - y2, -y1));
  return [x1 + stepX, y1 + stepY, x2 + stepX, y2 + stepY];
}

/** The box with the edges of `handle` moved by (dx, dy); edges that cross change places; cut to the image. */
export function resizedBox(bbox, handle, dx, dy, width, height) {
  const [x1, y1, x2, y2] = bbox;
  const a = { x: handle.x < 0 ? x1 + dx : x1, y: handle.y < 0 ? y1 + dy : y1 };
  const b = { x: handle.x > 0 ? x2 + dx : x2, y: handle.y > 0 ? y2 + dy : y2 };
  return boxBetween(a, b, width, height);
}

/** Cut to the image and rounded to 0.01 px, as boxes are stored; null when nothing with an area is left. */
export function committedBox(bbox, width, height) {
  const box = [
    round(clamp(bbox[0], 0, width)),
    round(clamp(bbox[1], 0, height)),
    round(clamp(bbox[2], 0, width)),
    round(clamp(bbox[3], 0, height)),
  ];
  return box[2] > box[0] && box[3] > box[1] ? box : null;
}

/** Whether two boxes are the same to the 0.01 px they are stored with. */
export function sameBox(a, b) {
  return a.every((value, index) => Math.abs(value - b[index]) < 0.005);
}

export function boxArea(bbox) {
  return (bbox[2] - bbox[0]) * (bbox[3] - bbox[1]);
}

/** Whether the point is in the box widened by `margin`. */
export function isInside(bbox, point, margin = 0) {
  return (
    point.x >= bbox[0] - margin && point.x <= bbox[2] + margin && point.y >= bbox[1] - margin && point.y <= bbox[3] + margin
  );
}

/** Whether the point lies on the outline of the box, at most `margin` away. */
export function isOnEdge(bbox, point, margin) {
  if (!isInside(bbox, point, margin)) return false;
  const insideX = Math.min(point.x - bbox[0], bbox[2] - point.x);
  const insideY = Math.min(point.y - bbox[1], bbox[3] - point.y);
  return Math.min(insideX, insideY) <= margin;
}

/** Where a handle of the box sits. */
export function handlePoint(bbox, handle) {
  return {
    x: (bbox[0] + bbox[2]) / 2 + (handle.x * (bbox[2] - bbox[0])) / 2,
    y: (bbox[1] + bbox[3]) / 2 + (handle.y * (bbox[3] - bbox[1])) / 2,
  };
}

/** The handle within `reach` of the point, corners first; handles in the middle of a side need a side of 4 reaches. */
export function handleAt(bbox, point, reach) {
  let best = null;
  let bestDistance = Infinity;
  for (const handle of HANDLES) {
    const isCorner = handle.x !== 0 && handle.y !== 0;
    const side = handle.x === 0 ? bbox[2] - bbox[0] : bbox[3] - bbox[1];
    if (!isCorner && side < 4 * reach) continue;
    const at = handlePoint(bbox, handle);
    const distance = Math.max(Math.abs(at.x - point.x), Math.abs(at.y - point.y));
    if (distance <= reach && distance < bestDistance) {
      best = handle;
      bestDistance = distance;
    }
  }
  return best;
}
