// The import report: what came in per split, what was mended, set aside or missing, and what leaks between splits.

import { dateText, getJSON, pageURL, projectURL } from "./api.js";
import { element } from "./element.js";
import { emptyState } from "./empty_state.js";

const KINDS = {
  quarantined: ["Set aside", "warn"], skipped: ["Left out", "danger"], missing: ["Missing", "danger"],
  warning: ["Look at", "warn"], fixed: ["Mended", "good"], unlisted: ["Unlisted", ""], note: ["Note", ""],
};

const TITLES = {
  swapped_size: "Width and height swapped: the rotation has to be chosen",
  degenerate: "Boxes without area", outside: "Boxes outside their image", bbox: "Boxes that are not four numbers",
  unknown_image: "Boxes of images that are not listed", unknown_category: "Boxes of classes that are not listed",
  of_skipped_image: "Boxes of images that were left out", file_name: "Images with an unusable file name",
  segmentation: "Segmentations that are neither polygons nor run lengths, left out", extra: "Further details nested too deep, left out",
  name_encoding: "Files whose name is not UTF-8",
  nested_archive: "Archives inside the export", too_large: "Files that are too large",
  missing_image: "Listed images that are not in the export", unlisted_image: "Images that no JSON lists, kept without boxes",
  unusable_image: "Pictures that cannot be used", already_there: "Pictures the project has already",
  identical_images: "The same picture in several splits", leakage: "Copies of one source in several splits", case_twins: "Class names that differ only in case",
  below_a_pixel: "Boxes smaller than a pixel: are they normalized?",
  many_boxes: "Images with very many boxes", clipped: "Boxes that reached over the edge were clipped",
  clipped_rounding: "Boxes up to a pixel over the edge were clipped", size_differs: "Declared size differs from the file's",
  size_missing: "Size not declared", duplicate_box: "Exact duplicate boxes dropped", bbox_text: "Numbers written as text",
  placeholder_category: "Placeholder class dropped", category_ids_differ: "Class ids differ between splits",
  category_lists_differ: "Class lists differ between splits", same_name: "Classes of one name merged",
  category_name: "Class names tidied", category_id: "Class ids renumbered", image_id: "Image ids renumbered",
  annotation_id: "Annotation ids missing or repeated", several_documents: "Several JSON documents in one file",
  splits_made: "Splits were made", no_test: "No test split", listed_twice: "Images listed twice",
  other_json: "Other JSON files", bare_images: "Images without any labels", xyxy: "Boxes written as two corners",
  bbox_from_polygon: "Boxes taken from polygons", apple_double: "macOS side files",
};

/** Fill `root` with the reports of the project's imports, newest first. */
export async function showReports(root) {
  const answer = await getJSON(projectURL("/report"));
  const reports = answer.reports ?? (answer.report ? [answer.report] : []);
  root.dataset.reports = String(reports.length);
  if (!reports.length) {
    root.replaceChildren(
      emptyState("Nothing was imported yet", "After an import, this is where it says what came in and what was mended."),
    );
    return;
  }
  root.replaceChildren(...reports.map((report, index) => showReport(report, index === 0)));
}

function showReport(report, isOpen) {
  return element(
    "details",
    { class: "a-card report", open: isOpen },
    element("summary", {}, element("strong", {}, report.source), element("span", { class: "a-muted a-small" }, ` imported ${dateText(report.created_at)}`)),
    tiles(report),
    splitTable(report),
    leakage(report),
    findings(report),
  );
}

function tiles(report) {
  const values = [
    ["images", report.images], ["boxes", report.annotations], ["classes", report.categories],
    ["mended", report.fixed], ["set aside", report.quarantined, "warn"], ["left out", report.skipped, "danger"],
    ["missing", report.missing, "danger"], ["unlisted", report.unlisted], ["warnings", report.warnings, "warn"],
  ];
  return element(
    "div",
    { class: "tiles" },
    ...values.filter(([, value]) => value !== undefined).map(([name, value, tone]) =>
      element("div", { class: `tile ${value && tone ? tone : ""}` }, element("strong", {}, Number(value).toLocaleString("en")), element("span", {}, name)),
    ),
  );
}

function splitTable(report) {
  const rows = Object.entries(report.per_split ?? {});
  if (!rows.length) return null;
  const classes = [...new Set(rows.flatMap(([, split]) => Object.keys(split.classes ?? {})))];
  const head = ["Split", "Images", "Without boxes", "Set aside", "Boxes", ...classes];
  return element(
    "div",
    { class: "table-scroll" },
    element(
      "table",
      { class: "a-table" },
      element("thead", {}, element("tr", {}, ...head.map((title, index) => element("th", { class: index ? "a-number" : "" }, title)))),
      element(
        "tbody",
        {},
        ...rows.map(([name, split]) =>
          element(
            "tr",
            {},
            element("td", {}, name),
            ...[split.images, split.empty, split.quarantined, split.annotations, ...classes.map((one) => split.classes[one] ?? 0)].map((value) =>
              element("td", { class: "a-number" }, Number(value ?? 0).toLocaleString("en")),
            ),
          ),
        ),
      ),
    ),
  );
}

function leakage(report) {
  const { sources = 0, examples = {} } = report.leakage ?? {};
  if (!sources) return element("p", { class: "a-muted a-small leakage" }, "No source has copies in more than one split.");
  return element(
    "details",
    { class: "finding" },
    element("summary", {}, chip("Look at", "warn"), `${sources === 1 ? "One source has" : `${sources.toLocaleString("en")} sources have`} copies in several splits: scores on them are too good`),
    element("ul", {}, ...Object.entries(examples).map(([key, splits]) => element("li", {}, `${key}: ${splits.join(", ")}`))),
  );
}

function findings(report) {
  const groups = (report.findings ?? []).filter((group) => group.code !== "leakage");
  return element("div", { class: "findings" }, ...groups.map(findingGroup));
}

function findingGroup(group) {
  const [word, tone] = KINDS[group.kind] ?? [group.kind, ""];
  const place = group.split ? ` in ${group.split}` : "";
  const more = group.kind === "quarantined" ? element("a", { href: pageURL("/data", { problem: "true" }) }, "Show them") : null;
  return element(
    "details",
    { class: "finding", "data-code": group.code },
    element("summary", {}, chip(word, tone), `${titleOf(group)}${place}`, element("span", { class: "a-muted" }, ` × ${group.count.toLocaleString("en")}`)),
    more,
    element(
      "ul",
      {},
      ...group.examples.map((one) => element("li", {}, one.where ? element("span", { class: "a-mono" }, `${one.where}: `) : null, one.message)),
    ),
  );
}

function titleOf({ kind, code }) {
  return TITLES[`${kind}_${code}`] ?? TITLES[code] ?? code;
}

/** What the findings of one kind are, each with its number: ["Left out: boxes without area × 2"]. */
export function summarize(report, kind) {
  const counts = new Map();
  for (const group of (report.findings ?? []).filter((one) => one.kind === kind)) {
    counts.set(titleOf(group), (counts.get(titleOf(group)) ?? 0) + group.count);
  }
  return [...counts].map(([title, count]) => `${KINDS[kind][0]}: ${title[0].toLowerCase()}${title.slice(1)} × ${count.toLocaleString("en")}`);
}

function chip(word, tone) {
  return element("span", { class: `a-chip ${tone}` }, word);
}
