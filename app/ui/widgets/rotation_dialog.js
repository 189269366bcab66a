// The question for a quarantined image: which way is it up? Four rotations under the same boxes; one is chosen.

import { notify, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";
import { drawBoxes, thumbnailURL } from "./thumbnail.js";

const ROTATIONS = [0, 90, 180, 270];
const TILE_PX = 190;

/** Ask for the rotation of an image; resolves with the changed image, or null when the user keeps it aside. */
export function askRotation(image, positions) {
  return new Promise((resolve) => {
    const tiles = element("div", { class: "rotations" });
    const dialog = element(
      "dialog",
      { class: "a-dialog rotation-dialog", "aria-label": "Choose a rotation" },
      element("h3", { class: "a-subtitle" }, "Which way is this picture up?"),
      element("p", { class: "a-muted a-small" }, image.problem),
      tiles,
      element(
        "div",
        { class: "actions" },
        element("button", { class: "a-button", type: "button", onclick: () => dialog.close() }, "Keep it aside"),
      ),
    );
    let changed = null;
    const choose = async (rotation) => {
      try {
        const answer = await sendJSON("PATCH", projectURL(`/images/${image.id}`), { rotation });
        changed = { ...image, ...answer.image };
        dialog.close();
      } catch (error) {
        notify(error, "error");
      }
    };
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(changed);
    });
    document.body.append(dialog);
    dialog.showModal();
    for (const rotation of ROTATIONS) tiles.append(makeTile(image, rotation, positions, choose));
  });
}

function makeTile(image, rotation, positions, choose) {
  const isTurned = (rotation - image.rotation) % 180 !== 0;
  const [width, height] = isTurned ? [image.height, image.width] : [image.width, image.height];
  const fits = image.boxes.every(([, , x2, y2]) => x2 <= width && y2 <= height);
  const canvas = element("canvas", { width: TILE_PX, height: TILE_PX });
  const picture = new Image();
  const draw = () => {
    const context = canvas.getContext("2d");
    drawBoxes(canvas, [], width, height, positions);
    const scale = Math.min(canvas.width / width, canvas.height / height);
    context.save();
    context.translate(canvas.width / 2, canvas.height / 2);
    context.rotate(((rotation - image.rotation) * Math.PI) / 180);
    context.drawImage(picture, (-image.width * scale) / 2, (-image.height * scale) / 2, image.width * scale, image.height * scale);
    context.restore();
    const over = element("canvas", { width: TILE_PX, height: TILE_PX });
    drawBoxes(over, image.boxes, width, height, positions);
    context.globalAlpha = 1;
    context.drawImage(over, 0, 0, canvas.width, canvas.height);
  };
  const tile = element(
    "button",
    {
      class: "a-button rotation",
      type: "button",
      disabled: !fits,
      "data-rotation": rotation,
      title: fits ? `Use it turned by ${rotation}°` : "Boxes lie outside at this rotation",
      onclick: () => choose(rotation),
    },
    canvas,
    element("span", {}, rotation ? `${rotation}° clockwise` : "As it is"),
  );
  picture.addEventListener("load", draw);
  picture.src = thumbnailURL(image, TILE_PX);
  return tile;
}
