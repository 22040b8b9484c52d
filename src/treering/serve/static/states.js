// What is shown where there is nothing to show: while it is loaded, where nothing was found, and where something failed.

import { keepToken } from "./api.js";
import { el, hinted, say, svg } from "./text.js";

const AGAIN_SECONDS = 3;

/** Rings, drawn as a picture of what is meant: whole, empty, broken. */
export function rings(kind) {
  const circles = [26, 19, 12, 5].map((radius, place) =>
    svg("circle", { cx: 32, cy: 32, r: radius, class: `ring ring-${place}`, pathLength: 100 }),
  );
  return svg("svg", { viewBox: "0 0 64 64", class: `picture ${kind}`, "aria-hidden": "true" }, circles);
}

/** Bars in the place of what comes; seen only if it does not come at once. */
export function loading(what, rows = 4) {
  const bars = Array.from({ length: rows }, () =>
    el("div", { class: "bars" }, el("span", {}), el("span", {}), el("span", {})),
  );
  return el("div", { class: "loading", role: "status", "aria-label": what }, bars);
}

export const empty = (title, ...rest) =>
  el("section", { class: "blank" }, rings("faint"), el("h2", {}, title), rest.map((one) => (one instanceof Node ? one : el("p", {}, hinted(one)))));

/** A failure and the way out of it. `again` is called when it is worth trying; `itself`, without being asked to. */
export function failed(failure, again, { itself = true } = {}) {
  say(failure.message);
  if (failure.status === 401) return tokenAsked(failure, again);
  const waits = itself && [0, 429, 502, 503, 504].includes(failure.status);
  const busy = [429, 503].includes(failure.status);
  const left = el("span", {}, "");
  const box = el("section", { class: "blank failed", role: "alert" },
    rings(failure.status ? "broken" : "gone"),
    el("h2", {}, busy ? "Busy just now" : failure.message),
    busy ? el("p", {}, failure.message) : null,
    failure.hint ? el("p", {}, hinted(failure.hint)) : null,
    el("p", {}, el("button", { type: "button", class: "primary", on: { click: () => again() } }, "Try again"), " ", left),
  );
  if (waits) {
    let seconds = failure.after || AGAIN_SECONDS;
    const tick = setInterval(() => {
      if (!box.isConnected) return clearInterval(tick);
      if (--seconds > 0) return left.replaceChildren(`or by itself in ${seconds} s`);
      clearInterval(tick);
      return again();
    }, 1000);
    left.replaceChildren(`or by itself in ${seconds} s`);
  }
  return box;
}

function tokenAsked(failure, again) {
  const field = el("input", { type: "password", name: "token", autocomplete: "off", required: true, "aria-label": "Token", placeholder: "token" });
  const submit = (event) => {
    event.preventDefault();
    keepToken(field.value.trim());
    document.dispatchEvent(new Event("token"));
    again();
  };
  return el("section", { class: "blank failed" },
    rings("broken"),
    el("h2", {}, "This server asks for a token"),
    el("p", {}, "Whoever started it has one. It is kept for this tab only."),
    el("form", { class: "token", on: { submit } }, field, el("button", { class: "primary" }, "Open")),
    el("p", { class: "hint" }, hinted(failure.hint || failure.message)),
  );
}
