// Ask the history a question: the answer as it comes, then what it stands on. What costs money is asked once, on purpose.

import { streamed } from "./api.js";
import { link, remember, toCommit } from "./route.js";
import { empty, failed, loading } from "./states.js";
import { count, day, el, number, plain, say, short, visible } from "./text.js";

const BY = { auto: "whoever fits", local: "the local model", claude: "Claude", history: "the history alone" };

/** The answers of this visit, the newest first. */
const before = [];

export function show(main, { params }) {
  const field = el("textarea", { "data-field": true, rows: 2, maxlength: 20000, enterkeyhint: "send", "aria-label": "Question", placeholder: "Why was the retry limit raised?  When did the cache get its lock, and what broke after it?" });
  field.value = params.q ?? "";
  const by = el("select", { "aria-label": "Who answers", id: "by" }, Object.entries(BY).map(([name, told]) => el("option", { value: name, selected: name === params.by }, told)));
  const send = el("button", { class: "primary" }, "Ask");
  const stop = el("button", { type: "button", class: "plain", hidden: true, on: { click: () => running?.abort() } }, "Stop");
  const out = el("div", { class: "answers" });
  const form = el("form", { class: "question", on: { submit: (event) => (event.preventDefault(), run()) } }, field,
    el("p", {}, el("label", { for: "by" }, "Answered by "), by, send, stop, el("span", { class: "hint" }, el("kbd", {}, "Enter"), " asks, ", el("kbd", {}, "Shift Enter"), " is a new line")));
  main.append(el("h1", {}, "Ask the history"), form, out);
  let running = null;

  async function run() {
    const question = field.value.trim();
    if (!question) return field.focus();
    running?.abort();
    const own = (running = new AbortController());
    remember(link("ask", "", { q: question, by: by.value === "auto" ? "" : by.value }));
    const text = el("div", { class: "text", "aria-busy": "true" });
    const wait = loading("Thinking", 1);
    const article = el("article", { class: "answer" }, el("h2", {}, question), wait, text);
    out.querySelector(".blank")?.remove();
    out.prepend(article);
    stop.hidden = false;
    try {
      const answer = await streamed("ask", { question, by: by.value }, {
        signal: own.signal,
        tell: (piece) => {
          wait.remove();
          text.append(visible(piece));
        },
      });
      before.unshift(answer);
      article.replaceWith(whole(answer));
      say(answer.thin ? "The evidence is thin" : `Answered, with ${count(answer.citations.length, "citation")}`);
    } catch (failure) {
      wait.remove();
      text.removeAttribute("aria-busy");
      if (failure.name === "AbortError") article.append(el("p", { class: "hint" }, "Stopped."));
      else article.append(failed(failure, () => (article.remove(), run()), { itself: false }));  // it may cost money
    } finally {
      if (own === running) stop.hidden = true;
    }
  }

  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    run();
  });
  if (before.length) out.append(...before.map(whole));
  else out.append(empty("Every answer names its commits", "The commits that speak to the question are found first; the answer is made of them, and each one it cites can be opened. Where they say too little, it says so."));
  field.focus();
  return { title: "Ask · treering", focused: true, leave: () => running?.abort() };
}

function whole(answer) {
  const { citations, unsupported } = answer;
  return el("article", { class: `answer${answer.thin ? " thin" : ""}` },
    el("h2", {}, answer.question),
    answer.thin ? el("p", { class: "notice" }, el("b", {}, "The evidence is thin."), " The history says too little of this to answer it well.") : null,
    el("div", { class: "text", dir: "auto" }, cited(answer.answer, citations)),
    unsupported.length ? el("div", { class: "notice" }, el("b", {}, "Not shown by what it cites:"), el("ul", {}, unsupported.map((one) => el("li", {}, one)))) : null,
    citations.length ? el("section", { "aria-label": "Citations" }, el("h3", {}, "It stands on"), el("ol", { class: "rows citations" }, citations.map((one) =>
      el("li", {}, el("a", { href: toCommit(one.commit_hash), "data-step": true }, el("code", {}, short(one.commit_hash)), " ", one.subject ? el("bdi", {}, one.subject) : el("i", {}, "no message")), el("small", {}, " ", day(one.date)))))) : null,
    el("p", { class: "hint" }, told(answer)));
}

function told({ answered_by: by, model, why, input_tokens: given, output_tokens: made, dollars }) {
  const cost = dollars ? ` · $${dollars.toFixed(4)}` : "";
  const tokens = given || made ? ` · ${number(given)} tokens in, ${number(made)} out` : "";
  return `Answered by ${BY[by] ?? plain(by)}${model ? ` (${plain(model)})` : ""}${why ? `: ${plain(why)}` : ""}${tokens}${cost}`;
}

/** The text, with the hashes that it cites leading to their commits; another hash stays a text. */
function cited(text, citations) {
  const made = document.createDocumentFragment();
  let from = 0;
  for (const found of text.matchAll(/\b[0-9a-f]{7,64}\b/g)) {
    const one = citations.find(({ commit_hash: hash }) => hash.startsWith(found[0]));
    if (!one) continue;
    made.append(visible(text.slice(from, found.index)), el("a", { href: toCommit(one.commit_hash), title: one.subject }, el("code", {}, short(found[0]))));
    from = found.index + found[0].length;
  }
  made.append(visible(text.slice(from)));
  return made;
}
