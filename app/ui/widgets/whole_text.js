// Words cut off for want of room are told whole, as a tooltip, where somebody points at them: names may be long anywhere.

const pen = document.createElement("canvas").getContext("2d");

function wholeText(node) {
  const style = getComputedStyle(node);
  if (node instanceof HTMLSelectElement) {
    const text = node.selectedOptions[0]?.text ?? "";
    pen.font = style.font;
    const room = node.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return pen.measureText(text).width > room ? text : "";
  }
  return style.textOverflow === "ellipsis" && node.scrollWidth > node.clientWidth ? node.textContent.trim() : "";
}

document.addEventListener("mouseover", ({ target }) => {
  for (let node = target; node instanceof HTMLElement && node !== document.body; node = node.parentElement) {
    if (node.title && node.title !== node.dataset.wholeText) return; // it has words of its own
    const text = wholeText(node);
    if (text || node.dataset.wholeText) node.title = node.dataset.wholeText = text;
    if (text) return;
  }
});
