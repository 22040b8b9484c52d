// Text as nodes, never as markup: everything that is shown is made here, and what a history says can only be read.

const ODD = /[\p{C}\p{Z}]/gu;
const PLAIN = new Set([" ", "\n", "\t", "\u3000"]);

/** A control character as it is shown: what reorders, hides or drives is seen instead, as on the command line. */
function named(char) {
  const code = char.codePointAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** The same as a plain string, for titles and labels. */
export function plain(text) {
  return String(text ?? "").replace(ODD, (char) => (PLAIN.has(char) ? char : named(char)));
}

/** A text with every control character made visible and marked as one that was. */
export function visible(text) {
  const made = document.createDocumentFragment();
  let from = 0;
  const whole = String(text ?? "");
  for (const found of whole.matchAll(ODD)) {
    if (PLAIN.has(found[0])) continue;
    if (found.index > from) made.append(whole.slice(from, found.index));
    const shown = document.createElement("span");
    shown.className = "control";
    shown.textContent = named(found[0]);
    made.append(shown);
    from = found.index + found[0].length;
  }
  made.append(whole.slice(from));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function filled(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else node.setAttribute(name, value === true ? "" : plain(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : visible(child));
  }
  return node;
}

/** An element: attributes (`on` holds listeners), then children; a string among them is text, whatever it holds. */
export const el = (name, given = {}, ...children) => filled(document.createElement(name), given, children);

/** The same of a drawing. */
export const svg = (name, given = {}, ...children) => filled(document.createElementNS(SVG, name), given, children);

/** A text in which words are marked: whole ones where they are short, else wherever they begin or a name holds them. */
export function marked(text, words) {
  const made = document.createDocumentFragment();
  const wanted = words.filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!wanted.length) return visible(text);
  wanted.sort((one, other) => other.length - one.length);
  const find = new RegExp(wanted.map((word) => (word.length < 4 ? `(?<![\\p{L}\\d])${word}(?![\\p{L}\\d])` : word)).join("|"), "giu");
  let from = 0;
  for (const found of text.matchAll(find)) {
    if (found.index > from) made.append(visible(text.slice(from, found.index)));
    made.append(el("mark", {}, found[0]));
    from = found.index + found[0].length;
  }
  made.append(visible(text.slice(from)));
  return made;
}

/** What a hint says, with `commands` as code. */
export const hinted = (text) =>
  plain(text).split("`").map((piece, place) => (place % 2 ? el("code", { class: "command" }, piece) : piece));

export const number = (value) => Number(value).toLocaleString("en");
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;
export const short = (hash) => String(hash).slice(0, 10);

/** 2024-03-31, of seconds since 1970 or of a date that was written so. */
export function day(when) {
  if (typeof when !== "number") return plain(when).slice(0, 10);
  const date = new Date(when * 1000);
  return Number.isNaN(date.getTime()) ? "no date" : date.toISOString().slice(0, 10);
}

/** The same with the time of day. */
export const minute = (when) => `${day(when)} ${new Date(when * 1000).toISOString().slice(11, 16)}`;

export function bytes(size) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(size, 1)) / 3));
  return `${(size / 1000 ** power).toFixed(power && size / 1000 ** power < 10 ? 1 : 0)} ${units[power]}`;
}

/** Say it to whoever listens to the page instead of looking at it. */
export function say(text) {
  document.getElementById("said").textContent = plain(text);
}
