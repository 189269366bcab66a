// Class colors, after Okabe and Ito with three of Paul Tol's: told apart with any common color blindness, on light
// and on dark. A category keeps the color of its position everywhere in the app; past the end they cycle.

export const COLORS = [
  "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#44aa99", "#aa4499", "#999933",
];

export const MOST_LINES = COLORS.length; // more lines of classes cannot be told apart

/** The color of the category at a 0-based position, as #rrggbb. */
export function colorOf(position) {
  const count = COLORS.length;
  return COLORS[((Math.trunc(position) % count) + count) % count] ?? COLORS[0];
}

/** Black or white, whichever reads better on a #rrggbb color (WCAG relative luminance). */
export function textColorOn(color) {
  const [red, green, blue] = [1, 3, 5].map((start) => {
    const value = parseInt(color.slice(start, start + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

// The palette's positions that read well as thin lines.
const LINE_POSITIONS = { light: [6, 4, 2, 5, 1, 7, 8, 0, 9], dark: [0, 4, 2, 5, 1, 7, 8, 3, 9] };

/** The color of line number `index` of a chart. */
export function lineColor(index) {
  const positions = LINE_POSITIONS[document.documentElement.classList.contains("dark") ? "dark" : "light"];
  return colorOf(positions[index % positions.length]);
}
