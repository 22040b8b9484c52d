// Which files a task will touch; what is known to be part of it is given by a click. Without a task, what may come next.

import { ask } from "./api.js";
import { link, remember, toCommit, toSearch } from "./route.js";
import { empty, failed, loading } from "./states.js";
import { count, el, plain, say, short } from "./text.js";

const PAUSE = 300;
const LIMIT = 15;

export function show(main, { params }) {
  const given = new Set((params.given ?? "").split("\n").filter(Boolean));
  const field = el("input", { type: "search", "data-field": true, value: params.task ?? "", maxlength: 20000, autocomplete: "off", enterkeyhint: "go", "aria-label": "What is to be done?", placeholder: "What is to be done?  In words" });
  const chips = el("div", { class: "chips" });
  const list = el("div", { class: "found" });
  main.append(el("h1", {}, "Which files will it touch?"), el("div", { class: "asked" }, el("div", { class: "field" }, field, el("kbd", { "aria-hidden": "true" }, "/"))), chips, list);
  let waiting = 0;
  let running = null;

  async function run() {
    clearTimeout(waiting);
    running?.abort();
    const own = (running = new AbortController());
    const task = field.value.trim();
    remember(link("files", "", { task, given: [...given].join("\n") }));
    chips.replaceChildren(...[...given].map((path) => el("button", { type: "button", class: "chip", "aria-label": `${plain(path)} is not part of it`, on: { click: () => (given.delete(path), run()) } }, el("b", {}, "given"), " ", el("bdi", {}, path), el("span", { "aria-hidden": "true" }, " ×"))));
    if (!task) return list.replaceChildren(next(own.signal));
    list.setAttribute("aria-busy", "true");
    if (!list.querySelector("ol")) list.replaceChildren(loading("Looking at the files"));
    try {
      const found = await ask("files", { task, given: [...given], limit: LIMIT }, { signal: own.signal });
      if (own !== running) return;
      say(count(found.length, "file"));
      list.replaceChildren(found.length
        ? el("ol", { class: "predicted" }, found.filter(({ path }) => !given.has(path)).map((one) => prediction(one, () => (given.add(one.path), run()))))
        : empty("No file answers this", "Nothing like it was done here before, and no file says anything of it."));
    } catch (failure) {
      if (failure.name !== "AbortError" && own === running) list.replaceChildren(failed(failure, run));
    } finally {
      if (own === running) list.removeAttribute("aria-busy");
    }
  }

  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(run, PAUSE);
  });
  field.addEventListener("keydown", (event) => event.key === "Enter" && list.querySelector("[data-step]")?.focus());
  run();
  field.focus();
  return { title: "Files · treering", focused: true, leave: () => (clearTimeout(waiting), running?.abort(), (running = null)) };
}

function prediction({ path, score, why }, give) {
  const percent = Math.round(score * 100);
  const bar = el("progress", { max: 1, value: score, "aria-hidden": "true" });
  return el("li", {},
    el("div", { class: "sure" }, el("b", {}, percent ? `${percent} %` : "< 1 %"), bar),
    el("div", {},
      el("a", { href: toSearch(path), "data-step": true, class: "path" }, el("bdi", {}, path)),
      el("p", { class: "reason" }, why)),
    el("button", { type: "button", class: "plain", "aria-label": `${plain(path)} is part of it`, title: "It is part of the task: look for what goes with it", on: { click: give } }, "+ given"));
}

/** What may come next, asked for by a button: a model may have to be loaded for it. */
function next(signal) {
  const box = empty("A task in words is enough", "What past commits of such words touched, and what the files themselves say, tell which ones it will touch.",
    el("p", {}, el("button", { type: "button", class: "primary", "data-step": true, on: { click: () => run() } }, "What may come next?")));
  async function run() {
    box.replaceChildren(loading("Looking at the last commits"));
    try {
      const told = await ask("suggest", { limit: 8 }, { signal });
      box.className = "next";
      box.replaceChildren(...suggested(told).filter(Boolean));
      box.querySelector("[data-step]")?.focus();
    } catch (failure) {
      if (failure.name !== "AbortError") box.replaceChildren(failed(failure, run));
    }
  }
  return box;
}

const suggested = (told) => [
  section("The next commits may touch", told.files, ({ path, last }) => [file(path), el("small", {}, " last in ", commit(last))]),
  section("Left open: they usually change together", told.open, ({ path, beside, together, changed }) => [file(path), el("small", {}, " with ", el("bdi", {}, beside), ` in ${together} of ${count(changed, "commit")}`)]),
  section("What the last commits are about", told.themes, ({ word, commits }) => [el("a", { href: toSearch(word), "data-step": true }, word), el("small", {}, ` ${count(commits.length, "commit")}`)]),
  el("p", { class: "hint" }, `Answered by the ${told.answered_by}: ${plain(told.why)}`),
];

const file = (path) => el("a", { href: toSearch(path), class: "path", "data-step": true }, el("bdi", {}, path));
const commit = (hash) => el("a", { href: toCommit(hash) }, el("code", {}, short(hash)));
const section = (title, rows, told) => (rows.length ? el("section", {}, el("h2", {}, title), el("ul", { class: "rows" }, rows.map((one) => el("li", {}, told(one))))) : null);
