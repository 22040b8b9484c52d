// The start: the history as rings, and words to begin with.

import { ask } from "./api.js";
import { trunk } from "./charts.js";
import { toSearch } from "./route.js";
import { failed, loading } from "./states.js";
import { count, day, el } from "./text.js";

const EXAMPLES = 6;

export function welcome() {
  const box = el("section", { class: "welcome" }, loading("Counting the rings", 3));
  async function run() {
    try {
      const told = await ask("overview");
      const words = told.themes.slice(-EXAMPLES).reverse();
      box.replaceChildren(
        trunk(told),
        el("div", {},
          el("h2", {}, "Every ring of ", el("bdi", {}, told.repo)),
          el("p", {}, `${count(told.commits, "commit")}, ${day(told.first)} to ${day(told.last)}. Say what a commit did; it is found by what it changed, even where its message says nothing.`),
          words.length ? el("p", { class: "chips" }, el("span", { class: "hint" }, "Lately: "), words.map(({ word }) => el("a", { class: "chip", href: toSearch(word), "data-step": true }, word))) : null,
          el("p", { class: "hint keyhints" }, el("kbd", {}, "j"), " ", el("kbd", {}, "k"), " walk, ", el("kbd", {}, "Enter"), " opens, ", el("kbd", {}, "?"), " shows all keys")));
    } catch (failure) {
      box.replaceChildren(failed(failure, run));
    }
  }
  run();
  return box;
}
