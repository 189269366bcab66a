// Numbers as people read them. What cannot be told is a dash.

/** A figure with three decimals; a dash when there is none, or nothing was measured (COCO's -1). */
export function formatFigure(value) {
  return value === null || value === undefined || value < 0 ? "–" : value.toFixed(3);
}

/** A difference of figures with its sign: "+0.012", "−0.003". */
export function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

/** A sentence whose negative figures are written with a hyphen, with minus signs; names in it stay. */
export function withMinus(text) {
  return text.replace(/(?<![\w.-])-(?=\d+\.\d{3}(?!\d))/g, "−");
}

/** Milliseconds an image costs: "0.5", "41"; a dash where they are not known. */
export function imageCost(ms) {
  return ms === null ? "–" : ms.toFixed(ms >= 10 ? 0 : 1);
}

const ORDINALS = new Intl.PluralRules("en", { type: "ordinal" });
const ENDS = { one: "st", two: "nd", few: "rd", other: "th" };

/** A place in a row: "1st", "2nd", "11th". */
export function ordinal(place) {
  return `${place}${ENDS[ORDINALS.select(place)]}`;
}

/** Seconds as "2 h 5 min", "3 min 20 s" or "12 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${whole} s`;
}

/** Seconds as precise as an estimate is: "40 s", "25 min", "3.5 h", "2.1 days". */
export function roughDuration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`;
}
