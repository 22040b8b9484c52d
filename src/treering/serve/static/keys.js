// The keys: one list of steps on every view, walked with j and k; the rest is where the browser already has it.

import { link } from "./route.js";

const VIEWS = { s: "search", f: "files", a: "ask", o: "overview" };

const steps = () => [...document.querySelectorAll("#main [data-step]")].filter((one) => one.offsetParent !== null);

/** Go so many steps on in the list; from outside of it, to its first. */
export function step(by) {
  const all = steps();
  if (!all.length) return;
  const now = all.indexOf(document.activeElement);
  const next = all[Math.max(0, Math.min(all.length - 1, now < 0 ? (by > 0 ? 0 : all.length - 1) : now + by))];
  next.focus({ preventScroll: true });
  (next.closest("li, tr, figure") ?? next).scrollIntoView({ block: "nearest" });
}

export function toField() {
  const field = document.querySelector("#main [data-field]");
  if (!field) return false;
  field.focus();
  field.select?.();
  return true;
}

const typing = (node) => node.isContentEditable || /^(TEXTAREA|SELECT)$/.test(node.tagName) || (node.tagName === "INPUT" && node.type !== "checkbox");

/** Listen. `back` leaves what is open. */
export function listen(back) {
  const dialog = document.getElementById("keys");
  const help = () => (dialog.open ? dialog.close() : dialog.showModal());
  document.getElementById("help").addEventListener("click", help);
  let led = 0;

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { key, target } = event;
    const inField = typing(target);
    const go = VIEWS[key];
    if (dialog.open) {
      if (key === "?") dialog.close();
      return;
    }
    const does = (run) => {
      event.preventDefault();
      run();
    };
    if (inField) {
      if (key === "Escape") does(() => target.blur());
      else if (key === "ArrowDown" && target.matches("input[data-field]")) does(() => step(1));
      return;
    }
    if (go && Date.now() - led < 1500) {
      led = 0;
      does(() => (location.hash = link(go)));
    } else if (key === "g") led = Date.now();
    else if (key === "/") does(() => toField() || (location.hash = link("search")));
    else if (key === "?") does(help);
    else if (key === "j" || key === "ArrowDown") does(() => step(1));
    else if (key === "k" || key === "ArrowUp") does(() => step(-1));
    else if (key === "Escape") does(back);
  });
}
