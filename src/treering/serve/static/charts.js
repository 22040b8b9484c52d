// Charts, drawn at the width that is there. Each is a figure: a title, a picture that says in words what it shows, and
// the figures as a table for whoever wants them.

import { count, day, el, minute, number, svg } from "./text.js";

/** A figure whose drawing is made anew when its width changes. `draw(width)` gives its parts and its height. */
export function chart({ title, told, label, draw, head, rows, kind = "" }) {
  const picture = svg("svg", { role: "img", "aria-label": label });
  const box = el("div", { class: "drawn" }, picture);
  let drawn = 0;
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.floor(contentRect.width);
    if (!width || width === drawn) return;
    drawn = width;
    const { height, parts } = draw(width);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    picture.replaceChildren(...parts.flat(Infinity).filter(Boolean));
  }).observe(box);
  return el("figure", { class: `chart ${kind}` },
    el("figcaption", {}, el("h2", {}, title), told ? el("p", {}, told) : null),
    box,
    rows?.length ? el("details", {}, el("summary", {}, "As a table"), table(head, rows)) : null);
}

export const table = (head, rows) => el("div", { class: "scrolled", tabindex: 0 }, el("table", { class: "data" },
  el("thead", {}, el("tr", {}, head.map((one) => el("th", { scope: "col" }, one)))),
  el("tbody", {}, rows.map((row) => el("tr", {}, row.map((one, place) => (place ? el("td", {}, String(one)) : el("th", { scope: "row" }, String(one)))))))));

const words = (x, y, text, given = {}) => svg("text", { x, y, ...given }, text);
const rule = (x1, y1, x2, y2, kind = "rule") => svg("line", { x1, y1, x2, y2, class: kind });
const path = (points) => points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** 1, 2 or 5 times a power of ten, at least so large. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= value);
}

/** Stretches of time without gaps, so many seconds each; several made one where there are more than fit. */
export function stretches({ activity, every }, most) {
  if (!activity.length) return [];
  const first = activity[0].start;
  const whole = Math.floor((activity.at(-1).start - first) / every) + 1;
  const joined = Math.ceil(whole / most);
  const made = Array.from({ length: Math.ceil(whole / joined) }, (_, place) => ({ start: first + place * joined * every, end: first + (place + 1) * joined * every, commits: 0, insertions: 0, deletions: 0 }));
  for (const one of activity) {
    const into = made[Math.floor((one.start - first) / (every * joined))];
    for (const name of ["commits", "insertions", "deletions"]) into[name] += one[name];
  }
  return made;
}

const when = (seconds, every) => (every < 86400 ? minute(seconds) : day(seconds));

/** Commits upwards, lines that came and went downwards (as roots: one large import would hide all else). */
export function activity(told) {
  const named = told.every < 86400 ? "hour" : told.every < 7 * 86400 ? "day" : "week";
  const draw = (width) => {
    const made = stretches(told, Math.max(20, Math.floor(width / 5)));
    const each = Math.round((made[0].end - made[0].start) / told.every);
    const [up, down, axis] = [96, 54, 18];
    const most = Math.max(...made.map((one) => one.commits), 1);
    const lines = Math.max(...made.flatMap((one) => [one.insertions, one.deletions]), 1);
    const step = width / made.length;
    const wide = Math.max(1, Math.min(14, step - 1));
    const size = (value) => Math.sqrt(value / lines) * down;
    const middle = up + axis;
    const bars = made.map((one, place) => {
      const x = place * step + (step - wide) / 2;
      if (!one.commits) return null;
      const tall = Math.max(2, (one.commits / most) * (up - 14));
      const [came, went] = [size(one.insertions), size(one.deletions)];
      return svg("g", {}, svg("title", {}, `${when(one.start, told.every)}: ${count(one.commits, "commit")}, +${number(one.insertions)} −${number(one.deletions)} lines`),
        svg("rect", { x, y: up - tall, width: wide, height: tall, class: "bar", rx: Math.min(1.5, wide / 3) }),
        svg("rect", { x, y: middle, width: wide, height: came, class: "plus" }),
        svg("rect", { x, y: middle, width: wide, height: went, class: "minus" }));
    });
    const ends = [words(0, up + 13, when(made[0].start, told.every)), words(width, up + 13, when(made.at(-1).start, told.every), { "text-anchor": "end" })];
    return { height: middle + down + 2, parts: [rule(0, up, width, up), words(0, 10, `${count(most, "commit")} at most${each > 1 ? `; a bar is ${each} ${named}s` : ""}`), bars, ends] };
  };
  return chart({
    title: `Activity by ${named}`,
    told: el("span", { class: "legend" }, el("i", { class: "bar" }), "commits", el("i", { class: "plus" }), "lines added", el("i", { class: "minus" }), "lines removed"),
    label: `Commits by ${named}, from ${day(told.first)} to ${day(told.last)}: ${number(told.commits)} in all`,
    draw, head: [named, "commits", "added", "removed"],
    rows: told.activity.slice(-60).map((one) => [when(one.start, told.every), number(one.commits), number(one.insertions), number(one.deletions)]),
  });
}

/** A line of hills for each theme: its share of a period's commits. */
export function themes({ periods, themes: lines }, address) {
  const share = (line) => line.counts.map((one, place) => (periods[place].commits ? one / periods[place].commits : 0));
  const draw = (width) => {
    const [left, tall, right] = [Math.min(130, width * 0.3), 26, 34];
    const wide = width - left - right;
    const parts = lines.map((line, row) => {
      const base = (row + 1) * tall;
      const shares = share(line);
      const most = Math.max(...shares, 1e-9);
      const at = (place) => left + (periods.length > 1 ? (place / (periods.length - 1)) * wide : wide / 2);
      const points = shares.map((one, place) => [at(place), base - (one / most) * (tall - 5)]);
      const hill = `${path([[left, base], ...points, [left + wide, base]])}Z`;
      return [
        rule(left, base, left + wide, base),
        svg("path", { d: hill, class: "hill" }), svg("path", { d: path(points), class: "crest" }),
        shares.map((one, place) => (line.counts[place] ? svg("circle", { cx: at(place), cy: base - (one / most) * (tall - 5), r: 2.2, class: "dot" }, svg("title", {}, `${day(periods[place].start)}: ${line.counts[place]} of ${count(periods[place].commits, "commit")}`)) : null)),
        svg("a", { href: address(line.name), "data-step": true }, words(left - 10, base - 5, line.name.slice(0, 18), { "text-anchor": "end", class: "name" })),
        words(width, base - 5, number(line.counts.reduce((sum, one) => sum + one, 0)), { "text-anchor": "end" }),
      ];
    });
    const height = lines.length * tall + 18;
    parts.push(words(left, height - 3, day(periods[0].start)), words(left + wide, height - 3, day(periods.at(-1).start), { "text-anchor": "end" }));
    return { height, parts };
  };
  return chart({
    title: "Themes over time", told: "Commits that are near each other, by what tells them apart; a hill is their share of a period’s commits.",
    label: `Themes, from the oldest to the newest: ${lines.map((line) => line.name).join(", ")}`, draw,
    head: ["theme", ...periods.map((one) => day(one.start))], rows: lines.map((line) => [line.name, ...line.counts]),
  });
}

/** The loss of the steps, and the looks at commits held out. */
export function training({ losses, validation }) {
  const draw = (width) => {
    const [left, height, foot, top] = [34, 170, 20, 8];
    const last = Math.max(losses.at(-1)?.[0] ?? 1, validation.at(-1)?.[0] ?? 1, 1);
    const all = [...losses, ...validation].map(([, loss]) => loss);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const span = high - low || 1;
    const x = (step) => left + (step / last) * (width - left - 6);
    const y = (loss) => top + ((high - loss) / span) * (height - foot - top - 6);
    const grid = round(span / 3);
    const marks = [];
    for (let mark = Math.ceil(low / grid) * grid; mark <= high; mark += grid) marks.push(rule(left, y(mark), width, y(mark)), words(left - 6, y(mark) + 4, String(Number(mark.toPrecision(3))), { "text-anchor": "end" }));
    const window = Math.max(1, Math.ceil(losses.length / 25));
    const means = losses.map(([step], place) => {
      const part = losses.slice(Math.max(0, place - window + 1), place + 1);
      return [x(step), y(part.reduce((sum, [, loss]) => sum + loss, 0) / part.length)];
    });
    return { height, parts: [
      marks,
      svg("path", { d: path(losses.map(([step, loss]) => [x(step), y(loss)])), class: "thin" }),
      svg("path", { d: path(means), class: "crest" }),
      validation.length > 1 ? svg("path", { d: path(validation.map(([step, loss]) => [x(step), y(loss)])), class: "held" }) : null,
      validation.map(([step, loss]) => svg("circle", { cx: x(step), cy: y(loss), r: 3, class: "held-dot" }, svg("title", {}, `step ${number(step)}: ${loss.toFixed(3)} on commits held out`))),
      words(left, height - 4, "step 1"), words(width, height - 4, number(last), { "text-anchor": "end" }),
    ] };
  };
  return chart({
    title: "Training", told: el("span", { class: "legend" }, el("i", { class: "bar" }), "loss of the steps", el("i", { class: "held" }), "on commits held out"),
    label: `The loss fell from ${losses[0]?.[1]} to ${losses.at(-1)?.[1]} nats a token`, draw,
    head: ["step", "loss held out"], rows: validation.map(([step, loss]) => [number(step), loss.toFixed(3)]),
  });
}

/** Bars with names: `rows` are {name, value, told, href, from, to, best}. `from` and `to` are an interval. */
export function bars({ title, told, label, rows, head, table: figures, most, kind }) {
  const top = most ?? Math.max(...rows.map((one) => Math.max(one.value, one.to ?? 0)), 1e-9);
  const draw = (width) => {
    const tall = 34;
    const right = 4;
    const parts = rows.map((one, place) => {
      const y = place * tall;
      const size = (value) => Math.max(0, Math.min(1, value / top)) * (width - right);
      const named = words(0, y + 12, fitting(one.name, width - one.told.length * 7 - 12), { class: "name" });
      return [
        one.href ? svg("a", { href: one.href, "data-step": true }, svg("title", {}, one.name), named) : named,
        words(width, y + 12, one.told, { "text-anchor": "end" }),
        svg("rect", { x: 0, y: y + 18, width: width - right, height: 6, rx: 3, class: "ground" }),
        svg("rect", { x: 0, y: y + 18, width: Math.max(2, size(one.value)), height: 6, rx: 3, class: one.best ? "bar" : "bar second" }),
        one.to !== undefined ? svg("path", { d: `M${size(one.from)} ${y + 21}H${size(one.to)}m0 -5v10M${size(one.from)} ${y + 16}v10`, class: "interval" }) : null,
      ];
    });
    return { height: rows.length * tall, parts };
  };
  return chart({ title, told, label, draw, head, rows: figures, kind });
}

/** A name, its beginning left out where it is longer than fits: of a path the end tells more. */
const fitting = (name, width) => (name.length * 6.9 > width ? `…${name.slice(-Math.max(6, Math.floor(width / 6.9) - 1))}` : name);

/** The history as a tree shows it: a ring for each stretch of time that had commits, the oldest inmost, as wide as it
    had many. */
export function trunk(told, most = 26) {
  const made = stretches(told, most);
  const widths = made.map((one) => (one.commits ? 1.2 + Math.sqrt(one.commits) : 0.25));
  const scale = 90 / widths.reduce((sum, one) => sum + one, 0);
  let radius = 4;
  const drawn = made.map((one, place) => {
    radius += widths[place] * scale;
    if (!one.commits) return null;
    return svg("path", { d: grown(radius, place), class: "ring", "stroke-width": Math.max(0.7, Math.min(2.2, 0.3 * widths[place] * scale)) },
      svg("title", {}, `${when(one.start, told.every)}: ${count(one.commits, "commit")}`));
  });
  return svg("svg", { viewBox: "-100 -100 200 200", class: "trunk", role: "img", "aria-label": `${number(told.commits)} commits from ${day(told.first)} to ${day(told.last)}, as the rings of a tree` },
    svg("path", { d: grown(radius, made.length - 1), class: "wood" }), svg("path", { d: grown(radius * 0.45, 0), class: "wood heart" }), svg("circle", { r: 1.8, class: "pith" }), drawn);
}

/** A ring that is no circle: all are bent nearly the same way. */
function grown(radius, place) {
  const points = [];
  for (let turn = 0; turn < 90; turn += 1) {
    const angle = (turn / 90) * 2 * Math.PI;
    const bend = 1 + 0.022 * Math.sin(2 * angle + 0.6 + place * 0.03) + 0.014 * Math.sin(3 * angle + 1.9) + 0.006 * Math.sin(7 * angle + place * 0.4);
    points.push([Math.cos(angle) * radius * bend, Math.sin(angle) * radius * bend * 0.96]);
  }
  return `${path(points)}Z`;
}
