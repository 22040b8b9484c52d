// One commit: what it says, what it changed, what it belongs to, and what is like it.

import { ask } from "./api.js";
import { row } from "./hits.js";
import { patch } from "./hunks.js";
import { toCommit, toSearch } from "./route.js";
import { failed, loading } from "./states.js";
import { count, el, hinted, minute, number, plain, short, svg } from "./text.js";

const LIKE = 4;
const MARKS = { added: "A", modified: "M", deleted: "D", renamed: "R" };

export function show(main, { what }, back) {
  const box = el("div", {}, loading("Reading the commit", 3));
  main.append(el("p", { class: "back" }, el("button", { type: "button", class: "plain", on: { click: back } }, "← Back", " ", el("kbd", {}, "Esc"))), box);
  const own = new AbortController();

  async function run() {
    try {
      const { commit, hunks } = await ask("commit", { commit: what }, { signal: own.signal });
      document.title = `${plain(commit.message_subject) || short(commit.commit_hash)} · treering`;
      box.replaceChildren(...told(commit, hunks));
      box.querySelector("h1").focus({ preventScroll: true });
      alike(commit.commit_hash, box.querySelector(".alike"), own.signal);
    } catch (failure) {
      if (failure.name !== "AbortError") box.replaceChildren(failed(failure, run));
    }
  }
  run();
  return { title: `${short(what)} · treering`, focused: true, leave: () => own.abort() };
}

function told(commit, hunks) {
  const committed = commit.committer_name && commit.committer_name !== commit.author_name;
  const secrets = Object.values(commit.redacted ?? {}).reduce((sum, one) => sum + one, 0);
  return [
    el("header", { class: "commit" },
      el("h1", { tabindex: -1 }, commit.message_subject ? el("bdi", {}, commit.message_subject) : el("i", {}, "no message")),
      el("p", { class: "meta" },
        el("span", { class: "hash" }, el("code", {}, commit.commit_hash), copying(commit.commit_hash)),
        el("span", {}, el("bdi", {}, commit.author_name), " ", el("bdi", { class: "faint" }, `<${plain(commit.author_email)}>`)),
        el("time", {}, minute(commit.commit_timestamp)),
        committed ? el("span", {}, "committed by ", el("bdi", {}, commit.committer_name)) : null),
      commit.message_body ? el("div", { class: "body", dir: "auto" }, commit.message_body) : null,
      el("dl", { class: "facts" }, facts(commit), secrets ? fact("secrets", `${count(secrets, "secret")} taken out of its texts`) : null)),
    el("section", { "aria-label": "Files" },
      el("h2", {}, count(Object.keys(commit.stats).length, "file"), " ",
        el("span", { class: "plus" }, `+${number(commit.insertions)}`), " ", el("span", { class: "minus" }, `−${number(commit.deletions)}`)),
      files(commit, hunks),
      commit.diff_complete ? null : el("p", { class: "hint" }, "Objects of this commit are missing from the repository: its change is told in part.")),
    hunks.length
      ? el("section", { "aria-label": "Changes" }, hunks.map((one, place) => patch(one.path, one.text, [], { numbered: true, cut: one.cut, id: `hunk-${place}` })))
      : el("p", { class: "hint" }, "No lines of it are in the index: it changes none, or none that a person wrote."),
    el("section", { class: "alike", "aria-label": "Like it" }),
  ];
}

const fact = (name, ...what) => el("div", {}, el("dt", {}, name), el("dd", {}, ...what));
const linked = (hash) => el("a", { href: toCommit(hash) }, el("code", {}, short(hash)));

function facts(commit) {
  const references = Object.entries(commit.references ?? {}).flatMap(([kind, values]) => values.map((value) => [kind, value]));
  return [
    commit.branches?.length ? fact(commit.branches.length > 1 ? "branches" : "branch", commit.branches.slice(0, 8).map((one) => [el("bdi", { class: "branch" }, one), " "]), commit.branches.length > 8 ? `and ${commit.branches.length - 8} more` : null) : null,
    commit.reachable === false ? fact("vanished", "no branch reaches it any more") : null,
    commit.parent_hashes.length ? fact(commit.parent_hashes.length > 1 ? "parents" : "parent", commit.parent_hashes.map((one) => [linked(one), " "])) : fact("parent", "none: it is a beginning"),
    commit.merged_by ? fact("brought by", linked(commit.merged_by), commit.merge_message ? [" ", el("span", {}, commit.merge_message.split("\n")[0])] : null) : null,
    commit.undoes ? fact("undoes", linked(commit.undoes)) : null,
    commit.same_patch_as ? fact("same change as", linked(commit.same_patch_as)) : null,
    references.length ? fact("refers to", references.slice(0, 20).map(([, value]) => [el("a", { class: "chip", href: toSearch(value) }, value), " "])) : null,
    commit.flags?.length ? fact("marked", commit.flags.join(", ")) : null,
  ];
}

function files(commit, hunks) {
  const at = new Map(hunks.map((one, place) => [one.path, `hunk-${place}`]));
  const status = new Map();
  for (const [name, mark] of Object.entries(MARKS)) for (const one of commit[`files_${name}`] ?? []) status.set(one.path ?? one, { mark, name, from: one.old_path });
  const most = Math.max(1, ...Object.values(commit.stats).map((one) => one.insertions + one.deletions));
  const shown = Object.entries(commit.stats).map(([path, { insertions, deletions }]) => {
    const { mark = "M", name = "modified", from } = status.get(path) ?? {};
    const known = at.get(path);
    const jump = known && el("button", { type: "button", class: "plain path", "data-step": true, on: { click: () => document.getElementById(known).scrollIntoView({ block: "start" }) } }, el("bdi", {}, path));
    return el("tr", {},
      el("td", { class: `mark ${name}`, title: name }, mark),
      el("td", { class: "path" }, jump || el("bdi", {}, path), from ? el("small", {}, " from ", el("bdi", {}, from)) : null, commit.files_binary?.includes(path) ? el("small", {}, " binary") : null),
      el("td", { class: "figures" }, el("span", { class: "plus" }, `+${number(insertions)}`), " ", el("span", { class: "minus" }, `−${number(deletions)}`)),
      el("td", { class: "share" }, share(insertions, deletions, most)),
      el("td", { class: "other" }, el("a", { href: toSearch(path), "aria-label": `What else changed ${plain(path)}` }, "history")));
  });
  return el("table", { class: "files" }, el("tbody", {}, shown));
}

/** How much of a file's change was added and removed, beside the largest change of the commit. */
function share(insertions, deletions, most) {
  const [plus, minus] = [(60 * insertions) / most, (60 * deletions) / most];
  return svg("svg", { viewBox: "0 0 60 8", "aria-hidden": "true" },
    svg("rect", { width: plus, height: 8, class: "plus" }), svg("rect", { x: plus, width: minus, height: 8, class: "minus" }));
}

function copying(hash) {
  const button = el("button", { type: "button", class: "plain", "aria-label": "Copy the hash", on: { click: async () => {
    await navigator.clipboard?.writeText(hash);
    button.textContent = "copied";
  } } }, "copy");
  return button;
}

async function alike(hash, box, signal) {
  try {
    const hits = await ask("similar", { commit: hash, limit: LIKE }, { signal });
    if (hits.length) box.replaceChildren(el("h2", {}, "Commits like it"), el("ol", { class: "hits small" }, hits.map((hit) => row({ ...hit, hunk: "" }, hits[0].score, ""))));
  } catch (failure) {
    if (failure.name !== "AbortError") box.replaceChildren(el("p", { class: "hint" }, "What is like it is not known: ", failure.message, failure.hint ? [" (", hinted(failure.hint), ")"] : null));
  }
}
