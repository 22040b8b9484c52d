// How things went over the runs: a small chart of each figure, what is shown to have changed, and what was learned.

import { chart, table } from "./charts.js";
import { bytes, count, day, el, hinted, minute, number, svg } from "./text.js";

const SAID = { better: "got better", worse: "got worse", steady: "steady", "too few": "too few runs to tell", "not judged": "" };
const TALL = 56;

/** A section of the overview, of what `/v1/monitor` told. */
export function monitor(told) {
  return el("section", { class: "monitor", "aria-labelledby": "monitor" },
    el("h2", { id: "monitor" }, "Monitor"),
    el("p", { class: told.alerts.length ? "notice" : "lead" }, told.verdict),
    el("p", { class: "hint" }, `${count(told.runs, "run")}; ${(told.training_seconds / 60).toFixed(1)} min of training, $${told.dollars.toFixed(4)} spent on Claude. A change is told against the noise of a bootstrap.`),
    told.series.length
      ? el("div", { class: "charts" }, told.series.map(figure), told.lessons.length ? lessons(told.lessons) : null)
      : el("p", {}, hinted("No run told a figure yet: `treering index`, `treering bench` and `treering learn` do.")));
}

/** A figure's value as people read it. */
const shown = (value, unit) => (unit === "bytes" ? bytes(value) : `${number(Number(value.toPrecision(4)))}${unit ? ` ${unit}` : ""}`);

function figure(one) {
  const values = one.points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const draw = (width) => {
    const x = (place) => 4 + (values.length > 1 ? (place / (values.length - 1)) * (width - 8) : (width - 8) / 2);
    const y = (value) => TALL - 6 - ((value - low) / (high - low || 1)) * (TALL - 14);
    const line = values.map((value, place) => `${place ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    return { height: TALL + 16, parts: [
      svg("line", { x1: 0, y1: TALL, x2: width, y2: TALL, class: "rule" }),
      svg("path", { d: line, class: "crest" }),
      one.points.map((point, place) => svg("circle", { cx: x(place), cy: y(point.value), r: place === values.length - 1 ? 3.5 : 2.2, class: "dot" }, svg("title", {}, `${minute(point.at)}: ${shown(point.value, one.unit)}`))),
      svg("text", { x: 0, y: TALL + 13 }, day(one.points[0].at)),
      values.length > 1 ? svg("text", { x: width, y: TALL + 13, "text-anchor": "end" }, day(one.points.at(-1).at)) : null,
    ] };
  };
  const change = one.change ? `, ${signed(one.change[0])} [${signed(one.change[1])}, ${signed(one.change[2])}] from ${shown(one.before, one.unit)}` : "";
  const state = SAID[one.state] ?? one.state;
  return chart({
    title: one.title[0].toUpperCase() + one.title.slice(1), kind: `series ${one.state}`,
    told: [el("b", {}, shown(one.newest ?? values.at(-1), one.unit)), state ? ` · ${state}${change}` : ""],
    label: `${one.title}: ${shown(values.at(-1), one.unit)} in the newest of ${count(values.length, "run")}${state ? `, ${state}` : ""}`,
    draw, head: ["run", one.unit || "value", "cases"], rows: one.points.slice(-60).map((point) => [minute(point.at), Number(point.value.toPrecision(5)), point.cases]),
  });
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Number(Math.abs(value).toPrecision(3))}`;

function lessons(rows) {
  const bits = (value) => (value === null ? "not known" : value.toFixed(3));
  return el("figure", { class: "chart lessons" },
    el("figcaption", {}, el("h2", {}, "Trainings"), el("p", {}, "Bits per byte before and after are of the same later commits; another row's are others.")),
    table(["trained", "model", "before", "after", "tokens", "seconds", ""],
      rows.slice(-12).reverse().map((one) => [minute(one.at), one.model.slice(0, 8), bits(one.bits_per_byte[0]), bits(one.bits_per_byte[1]), number(one.tokens), Math.round(one.seconds), one.promoted ? "came into use" : "not shown to be better"])));
}
