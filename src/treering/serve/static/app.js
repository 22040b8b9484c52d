// The page: which view is open, in which repository, in which light, and how the index is. The views do the rest.

import { Failure, ask, repositories } from "./api.js";
import * as askView from "./ask.js";
import * as commitView from "./commit.js";
import * as filesView from "./files.js";
import { listen } from "./keys.js";
import * as overviewView from "./overview.js";
import { link, route } from "./route.js";
import * as searchView from "./search.js";
import { empty } from "./states.js";
import { count, el, number, svg } from "./text.js";

const VIEWS = { search: searchView, commit: commitView, files: filesView, ask: askView, overview: overviewView };
const main = document.getElementById("main");
let open = null;
let shown = null;

function show() {
  const now = route();
  const view = VIEWS[now.view];
  open?.leave?.();
  main.replaceChildren();
  main.className = now.view;
  const named = now.view === "commit" ? "search" : now.view;
  for (const one of document.querySelectorAll("[data-view]")) {
    one.setAttribute("href", link(one.dataset.view));
    if (one.dataset.view === named) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  if (!view) {
    open = null;
    main.append(empty("There is no such view", el("a", { href: link("search") }, "Search the history")));
    return;
  }
  if (shown !== now.repository) status();
  shown = now.repository;
  open = view.show(main, now, back);
  if (open.title) document.title = open.title;
  if (!open.focused) main.focus({ preventScroll: true });
}

/** Leave what is open: a commit for what led to it, else for the field. */
function back() {
  if (route().view !== "commit") document.querySelector("#main [data-field]")?.focus();
  else if (history.state?.within) history.back();
  else location.hash = link("search");
}

/** How the index is, in a few words that lead to the rest. */
async function status() {
  const state = document.getElementById("state");
  const tell = (kind, text) => {
    state.hidden = false;
    state.className = `state ${kind}`;
    state.href = link("overview");
    state.replaceChildren(el("span", { class: "dot", "aria-hidden": "true" }), el("span", {}, text));
  };
  try {
    const told = await ask("status");
    if (told.behind) tell("behind", "index is behind");
    else tell("good", `${number(told.indexed)} ${told.indexed === 1 ? "commit" : "commits"}`);
    state.title = told.behind ? "Run `treering index`" : `${count(told.indexed, "commit")} indexed`;
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    tell("bad", failure.status === 401 ? "token needed" : failure.status ? "no index" : "no server");
    state.title = failure.message;
  }
}

async function choose() {
  let names = [];
  try {
    names = await repositories();
  } catch {
    return; // the view says it
  }
  const box = document.getElementById("repository");
  const select = el("select", { "aria-label": "Repository", on: { change: () => (location.hash = link(route().view === "commit" ? "search" : route().view, "", {}, select.value)) } },
    names.map((name) => el("option", { value: name, selected: name === route().repository }, name)));
  box.replaceChildren(...(names.length > 1 ? [select] : names.map((name) => el("bdi", {}, name))));
}

function theme() {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const draw = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.setAttribute("aria-label", "Dark");
    button.title = isDark() ? "Light" : "Dark";
    button.replaceChildren(svg("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, svg("circle", { cx: 10, cy: 10, r: 7 }), svg("path", { d: "M10 3a7 7 0 0 1 0 14Z", class: "half" })));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    draw();
  });
  dark.addEventListener("change", draw);
  draw();
}

// What is opened from within can be gone back from.
addEventListener("hashchange", () => {
  if (!history.state) history.replaceState({ within: true }, "");
  show();
});
document.addEventListener("token", () => (status(), choose()));
document.getElementById("skip").addEventListener("click", () => main.focus());
theme();
listen(back);
choose();
show();
