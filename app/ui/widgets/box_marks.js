// Marks in the upper right corner of a box, which tell kinds of boxes apart where colors do not.

const SIZE_PX = 7;
const INSET_PX = 3;

/**
 * Add a mark to a path: "cross" or "ring".
 * @param {Path2D} path @param {"cross" | "ring"} mark
 * @param {number} right @param {number} top corner of the box @param {number} room its shorter side, all in CSS pixels
 */
export function addMark(path, mark, right, top, room) {
  const size = Math.min(SIZE_PX, room / 2);
  if (size < 3) return;
  const [x, y] = [right - INSET_PX - size, top + INSET_PX];
  if (mark === "cross") {
    path.moveTo(x, y);
    path.lineTo(x + size, y + size);
    path.moveTo(x + size, y);
    path.lineTo(x, y + size);
  } else {
    path.moveTo(x + size, y + size / 2);
    path.arc(x + size / 2, y + size / 2, size / 2, 0, 2 * Math.PI);
  }
}
