// Hunks: lines that were added and removed, with the words that were asked for marked in them.

import { el, marked, count } from "./text.js";

const HEAD = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)$/;
const KINDS = { "+": "added", "-": "removed", "\\": "note" };

/** The lines of a unified diff. With `numbered`, each has its number in the file before and after. */
export function hunk(text, words = [], { numbered = false } = {}) {
  const rows = [];
  let [before, after] = [0, 0];
  for (const line of text.replace(/\n$/, "").split("\n")) {
    const head = HEAD.exec(line);
    if (head) {
      [before, after] = [Number(head[1]), Number(head[2])];
      rows.push(el("div", { class: "line head" }, el("span", { class: "code" }, head[3] || `line ${head[2]}`)));
      continue;
    }
    const kind = KINDS[line[0]] ?? "same";
    const numbers = numbered && kind !== "note"
      ? [el("span", { class: "at" }, kind === "added" ? "" : String(before)), el("span", { class: "at" }, kind === "removed" ? "" : String(after))]
      : [];
    if (kind === "same" || kind === "removed") before += 1;
    if (kind === "same" || kind === "added") after += 1;
    rows.push(el("div", { class: `line ${kind}` }, numbers, el("span", { class: "sign" }, kind === "note" ? "" : line[0] || " "), el("span", { class: "code" }, marked(line.slice(1), words))));
  }
  return el("div", { class: "lines", dir: "ltr" }, el("div", { class: "table" }, rows));
}

/** A file's hunks under its path. */
export function patch(path, text, words, { numbered = false, cut = 0, id } = {}) {
  const shown = hunk(text, words, { numbered });
  // What scrolls must be reached by the keyboard too.
  Object.assign(shown, { tabIndex: numbered ? 0 : -1 });
  return el("figure", { class: "patch", id },
    el("figcaption", {}, el("bdi", {}, marked(path, words))),
    shown,
    cut && numbered ? el("p", { class: "cut" }, `${count(cut, "byte")} of this file's change are not in the index`) : null,
  );
}
