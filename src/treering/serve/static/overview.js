// The report's charts, and what there is: the index, the model, and what to run where something is missing or behind.

import { ask } from "./api.js";
import { activity, bars, themes, training, trunk } from "./charts.js";
import { monitor } from "./monitor.js";
import { toSearch } from "./route.js";
import { failed, loading } from "./states.js";
import { bytes, count, day, el, hinted, number } from "./text.js";

const ENOUGH = 20;
const BASELINES = { base: "before tuning", tuned: "after tuning", ngram: "an adaptive byte n-gram" };

export function show(main) {
  const box = el("div", {}, loading("Counting the rings", 6));
  main.append(box);
  const own = new AbortController();
  async function run() {
    try {
      const [told, state, went] = await Promise.all(["overview", "status", "monitor"].map((name) => ask(name, {}, { signal: own.signal })));
      box.replaceChildren(head(told, state), el("div", { class: "charts" }, charts(told)), monitor(went));
      box.querySelector("h1").focus({ preventScroll: true });
    } catch (failure) {
      if (failure.name !== "AbortError") box.replaceChildren(failed(failure, run));
    }
  }
  run();
  return { title: "Overview · treering", focused: true, leave: () => own.abort() };
}

function head(told, state) {
  return el("header", { class: "overview" },
    trunk(told),
    el("div", {},
      el("h1", { tabindex: -1 }, el("bdi", {}, told.repo)),
      el("p", { class: "lead" }, `${count(told.commits, "commit")} by ${count(told.authors, "author")}, ${day(told.first)} to ${day(told.last)}`),
      el("ul", { class: "states" }, states(told, state)),
      told.torn.map((one) => el("p", { class: "notice" }, one))));
}

/** What there is, each with what to run where it is not as it could be. */
function states(told, state) {
  const line = (good, name, what, run) => el("li", { class: good ? "good" : "behind" }, el("span", { class: "dot", "aria-hidden": "true" }), el("b", {}, name), " ", el("span", {}, what), run ? [" ", el("span", { class: "run" }, hinted(`run \`${run}\``))] : null);
  const model = told.training;
  const vectors = `${count(state.vectors, "vector")}, ${bytes(state.bytes)} in all`;
  return [
    state.behind
      ? line(false, "Index", `behind the repository: ${number(state.indexed)} of ${count(state.commits, "commit")} can be found, and it may have moved on`, "treering index")
      : line(true, "Index", `current: ${count(state.indexed, "commit")}, ${vectors}`),
    state.partial ? line(false, "Damage", `${count(state.partial, "commit")} could be read in part only`) : null,
    model ? line(true, "Model", `${model.base}, trained for ${Math.max(1, Math.round(model.seconds / 60))} min`) : line(false, "Model", "none of this repository yet", "treering run"),
    told.search ? line(true, "Search", `measured ${day(told.search.made)} on ${count(told.search.commits, "commit")}`) : line(false, "Search", "not measured on this repository yet", "treering bench"),
  ];
}

function charts(told) {
  return [
    told.activity.length ? activity(told) : null,
    told.themes.length ? themes(told, (word) => toSearch(word)) : none("Themes over time", "The messages have no themes yet: too few of them share a word."),
    told.hot.length ? hot(told) : null,
    told.training ? model(told.training) : none("Training", "No model was trained on this history yet.", "treering run"),
    told.search ? quality(told.search) : none("Search quality", "How well search works was not measured here yet.", "treering bench"),
    spent(told.spent),
  ];
}

const none = (title, text, run) => el("figure", { class: "chart none" }, el("figcaption", {}, el("h2", {}, title), el("p", {}, text, run ? [" ", hinted(`\`${run}\``)] : null)));

const hot = ({ hot: rows, hot_since: since }) => bars({
  title: "Hot spots", told: `What changed most since ${day(since)}`, label: `The most changed path is ${rows[0].path}`, kind: "hot",
  rows: rows.slice(0, 10).map((one) => ({ name: one.path, value: one.commits, told: count(one.commits, "commit"), href: toSearch(one.path), best: true })),
  head: ["path", "commits", "authors", "added", "removed"], table: rows.map((one) => [one.path, one.commits, one.authors, number(one.insertions), number(one.deletions)]),
});

function model(told) {
  const box = training(told);
  const rows = Object.entries(told.bits_per_byte).filter(([, value]) => value !== null);
  box.querySelector("figcaption").append(el("p", { class: "verdict" }, told.verdict));
  if (rows.length) box.append(el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, BASELINES[name] ?? name), el("dd", {}, el("b", {}, value.toFixed(3)), " bits per byte")))));
  return box;
}

/** Of all cases: recall at 10 of each way to search. */
function quality(bench) {
  const cases = bench.rows[0]?.cases_of;
  const rows = bench.rows.filter((one) => one.cases_of === cases);
  const ours = rows.find((one) => one.way === "treering");
  return bars({
    title: "Search quality", told: `Questions of which the right commit is among the first ten; ${count(rows[0]?.cases ?? 0, "case")} of this repository${cases ? ` (${cases})` : ""}${rows[0]?.cases < ENOUGH ? ", too few to tell" : ""}`,
    label: ours ? `treering finds ${Math.round(ours.recall * 100)} % among the first ten` : "Recall of each way to search", most: 1,
    rows: rows.map((one) => ({ name: one.way, value: one.recall, told: `${(one.recall * 100).toFixed(0)} %`, best: one.way === "treering" })),
    head: ["cases", "way", "number", "MRR@10", "recall@10"], table: bench.rows.map((one) => [one.cases_of, one.way, one.cases, one.mrr.toFixed(3), one.recall.toFixed(3)]),
  });
}

function spent(told) {
  if (!told) return none("Spend", "What was spent cannot be read.");
  if (!told.rows.length) return none("Spend", "Nothing was spent: no model that costs money was asked.");
  const dollars = (value) => `$${value.toFixed(value < 1 ? 4 : 2)}`;
  return bars({
    title: "Spend", told: `${dollars(told.dollars)} in all, ${dollars(told.today.left)} left today; by model and purpose`,
    label: `${dollars(told.dollars)} was spent`,
    rows: told.rows.map((one) => ({ name: `${one.model}: ${one.purpose}`, value: one.dollars, told: dollars(one.dollars), best: true })),
    head: ["day", "US dollars"], table: Object.entries(told.days).map(([date, value]) => [date, value.toFixed(4)]),
  });
}
