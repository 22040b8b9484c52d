// A commit that was found: what it is, why it answers, and its best hunk.

import { patch } from "./hunks.js";
import { toCommit } from "./route.js";
import { count, day, el, marked, short, svg } from "./text.js";

/** A hit: what it is, why it answers, and its best hunk. */
export function row(hit, most, query, left = () => {}) {
  const reasons = reasonsOf(hit.why);
  const words = wordsOf(reasons, query);
  const files = hit.files.length;
  return el("li", { class: "hit" },
    strength(most ? hit.score / most : 1),
    el("article", {},
      el("h2", {}, el("a", { href: toCommit(hit.commit_hash), "data-step": true, on: { focus: left, click: left } },
        hit.subject ? el("bdi", {}, marked(hit.subject, words)) : el("i", {}, "no message"))),
      el("p", { class: "meta" },
        el("code", {}, short(hit.commit_hash)), el("time", {}, day(hit.date)), el("bdi", {}, hit.author),
        hit.branch ? el("bdi", { class: "branch" }, hit.branch) : null,
        files ? el("span", {}, count(files, "file")) : null,
        hit.merged_by ? el("a", { href: toCommit(hit.merged_by) }, "its merge") : null),
      el("ul", { class: "why", "aria-label": "Why" }, reasons.map(({ of, said }) => el("li", {}, of ? el("b", {}, of) : null, " ", said))),
      hit.hunk ? patch(hit.hunk_path, hit.hunk, words) : null));
}

const reasonsOf = (why) => why.split(" · ").filter(Boolean).map((one) => {
  const [of, ...said] = one.split(": ");
  return said.length ? { of, said: said.join(": ") } : { of: "", said: one };
});

/** The words to mark: those that the reasons name, and what is written in code in the question. */
function wordsOf(reasons, query) {
  const words = new Set(reasons.filter(({ of }) => of && !of.startsWith("meaning")).flatMap(({ said }) => said.split(", ")));
  for (const [, phrase] of query.matchAll(/"([^"]{2,200})"/g)) words.add(phrase);
  const asked = query.split(/[\s"`]+/).filter((word) => word.length > 1);
  for (const word of asked) if (!words.size || /[\d_./]|[a-z][A-Z]/.test(word)) words.add(word);
  return [...words];
}

/** How good a hit is beside the best one: one to four rings. */
function strength(share) {
  const rings = Math.max(1, Math.min(4, Math.ceil(share * 4)));
  return svg("svg", { viewBox: "0 0 20 20", class: "strength", "aria-hidden": "true" },
    [1.6, 4.2, 6.8, 9.2].map((radius, place) => svg("circle", { cx: 10, cy: 10, r: radius, class: place < rings ? "on" : "off" })));
}
