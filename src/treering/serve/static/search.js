// Search as you type: what was asked, what was found, why, and the hunk that shows it.

import { ask } from "./api.js";
import { row } from "./hits.js";
import { link, remember } from "./route.js";
import { empty, failed, loading } from "./states.js";
import { count, el, say, svg } from "./text.js";
import { welcome } from "./welcome.js";

const PAUSE = 140;
const FIRST = 10;
const MOST = 100;
const KINDS = ["source", "test", "docs", "config", "lock", "generated", "vendored", "binary", "log", "data"];
const LINE = /^\S+\.\w+:\d+$/;

const FILTERS = [
  { name: "author", told: "Author", hint: "name or address" },
  { name: "since", told: "Since", hint: "2024-01-31, 3 months ago" },
  { name: "until", told: "Until", hint: "2024-12-31, yesterday" },
  { name: "branch", told: "Branch", hint: "main" },
  { name: "path", told: "Path", hint: "src/, *.py" },
];

/** The last answer, so that going back to it shows it at once, at the place that was left. */
let last = null;

export function show(main, { params }) {
  const query = params.q ?? "";
  const field = el("input", {
    type: "search", id: "query", "data-field": true, autocomplete: "off", spellcheck: "false", maxlength: 20000,
    enterkeyhint: "search", value: query, "aria-label": "What did the commit do?",
    placeholder: "What did the commit do?  A hash, #123, a path, FILE:LINE or a \"phrase\" too",
  });
  const inputs = filterFields(params);
  const chips = el("div", { class: "chips" });
  const list = el("div", { class: "found", "aria-live": "off" });
  const told = el("p", { class: "told" });
  const toggle = el("button", { type: "button", class: "toggle", "aria-expanded": "false", "aria-controls": "filters", on: { click: () => {
    const open = toggle.getAttribute("aria-expanded") !== "true";
    toggle.setAttribute("aria-expanded", String(open));
    rail.classList.toggle("open", open);
  } } }, "Filters");
  const rail = el("form", { class: "rail", id: "filters", "aria-label": "Filters", on: { submit: (event) => event.preventDefault() } }, Object.values(inputs).map((one) => one.row));
  main.append(
    el("h1", { class: "unseen" }, "Search"),
    el("div", { class: "asked", role: "search" }, el("div", { class: "field" }, lens(), field, el("kbd", { "aria-hidden": "true" }, "/")), toggle),
    el("div", { class: "split" }, rail, el("div", { class: "main" }, chips, told, list)),
  );

  let limit = FIRST;
  let waiting = 0;
  let running = null;
  let shown = "";

  const chosen = () => {
    const filters = {};
    for (const [name, { value }] of Object.entries(inputs)) if (value()) filters[name] = value();
    return filters;
  };

  const tellFilters = (filters) => {
    chips.replaceChildren(...Object.entries(filters).map(([name, value]) =>
      el("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${name}`, on: { click: () => {
        inputs[name].clear();
        soon(0);
      } } }, el("b", {}, name === "include_merges" ? "merges too" : name), value === true ? "" : ` ${value}`, el("span", { "aria-hidden": "true" }, " ×"))));
    const used = Object.keys(filters).length;
    toggle.replaceChildren(used ? `Filters (${used})` : "Filters");
  };

  async function run({ more = false } = {}) {
    clearTimeout(waiting);
    running?.abort();
    const asked = field.value.trim();
    const filters = chosen();
    tellFilters(filters);
    if (!more) limit = FIRST;
    remember(link("search", "", { q: asked, ...filters }));
    document.title = asked ? `${asked} · treering` : "treering";
    if (!asked) {
      running = null;
      shown = "";
      told.replaceChildren();
      list.removeAttribute("aria-busy");
      list.replaceChildren(welcome());
      return;
    }
    const own = (running = new AbortController());
    list.setAttribute("aria-busy", "true");
    if (!shown) list.replaceChildren(loading("Searching"));
    const key = location.hash;
    try {
      const line = LINE.test(asked);
      const hits = line
        ? await ask("why", { place: asked, limit }, { signal: own.signal })
        : await ask("search", { query: asked, limit, ...filters }, { signal: own.signal });
      if (own !== running) return;
      last = { key, hits, limit, line, step: 0 };
      fill(last, asked, filters);
    } catch (failure) {
      if (failure.name === "AbortError" || own !== running) return;
      shown = "";
      told.replaceChildren();
      list.replaceChildren(failed(failure, () => run()));
    } finally {
      if (own === running) list.removeAttribute("aria-busy");
    }
  }

  function fill(answer, asked, filters) {
    const { hits, line } = answer;
    shown = asked;
    if (!hits.length) {
      told.replaceChildren();
      const filtered = Object.keys(filters).length > 0;
      list.replaceChildren(empty("Nothing was found",
        filtered ? "No commit that the filters let through answers this." : "No commit answers this. Other words may: what it touched, a name in the code, what it was for.",
        ...(filtered ? [el("p", {}, el("button", { type: "button", class: "primary", on: { click: () => {
          for (const one of Object.values(inputs)) one.clear();
          run();
        } } }, "Search without them"))] : [])));
      say("Nothing was found");
      return;
    }
    const whole = hits.length >= answer.limit && answer.limit < MOST;
    told.replaceChildren(line ? "Commits that explain this line" : `${whole ? "The best " : ""}${count(hits.length, "commit")}`);
    say(told.textContent);
    const most = Math.max(...hits.map((hit) => hit.score), 0);
    list.replaceChildren(el("ol", { class: "hits" }, hits.map((hit, place) => row(hit, most, asked, () => (answer.step = place)))),
      whole ? el("button", { type: "button", class: "more", on: { click: () => {
        limit = Math.min(MOST, answer.limit * 3);
        run({ more: true });
      } } }, "More") : "");
  }

  const soon = (pause = PAUSE) => {
    clearTimeout(waiting);
    waiting = setTimeout(run, pause);
  };
  field.addEventListener("input", () => soon());
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) list.querySelector("[data-step]")?.focus();
  });
  rail.addEventListener("input", (event) => soon(event.target.matches("select, [type=checkbox]") ? 0 : 350));

  if (last?.key === location.hash) {
    limit = last.limit;
    tellFilters(chosen());
    document.title = `${query} · treering`;
    fill(last, query, chosen());
    list.querySelectorAll("[data-step]")[last.step]?.focus();
  } else {
    run();
    field.focus();
  }
  return { title: null, focused: true, leave: () => (clearTimeout(waiting), running?.abort(), (running = null)) };
}

function filterFields(params) {
  const fields = {};
  for (const { name, told, hint } of FILTERS) {
    const input = el("input", { id: `filter-${name}`, name, value: params[name] ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false", maxlength: 1000 });
    fields[name] = { row: el("p", {}, el("label", { for: input.id }, told), input), value: () => input.value.trim(), clear: () => (input.value = "") };
  }
  const kind = el("select", { id: "filter-kind", name: "kind" }, el("option", { value: "" }, "any"), KINDS.map((one) => el("option", { value: one, selected: one === params.kind }, one)));
  fields.kind = { row: el("p", {}, el("label", { for: kind.id }, "Kind of file"), kind), value: () => kind.value, clear: () => (kind.value = "") };
  const merges = el("input", { type: "checkbox", id: "filter-merges", name: "include_merges", checked: params.include_merges === "true" });
  fields.include_merges = { row: el("p", { class: "check" }, merges, el("label", { for: merges.id }, "Merges too")), value: () => merges.checked, clear: () => (merges.checked = false) };
  return fields;
}

const lens = () => svg("svg", { viewBox: "0 0 20 20", class: "lens", "aria-hidden": "true" }, svg("circle", { cx: 8.5, cy: 8.5, r: 5.5 }), svg("path", { d: "m13 13 5 5" }));
