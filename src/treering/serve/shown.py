"""Answers as a model reads them: a short text, and the same as values. For MCP, which takes both.

What comes from a repository is made printable, on one line where it could forge another; marking it as data is up to
whoever sends it.
"""

from collections.abc import Callable, Iterable
from functools import singledispatch
from typing import Any

import msgspec

from treering.assisting import visible
from treering.deciding import Brief
from treering.finding import CommitDetail, told
from treering.learning import Suggestions
from treering.operations import Status
from treering.report import one_line, printable
from treering.types import FilePrediction, Hit

PATHS = 6
HUNK_LINES = 8
LINE = 200
BODY_LINES = 40

Uri = Callable[[str], str]
"""The address of a commit's detail, by its hash; empty where it has none."""
Shown = tuple[str, dict[str, Any]]


def shown(found: object, uri: Uri) -> Shown:
    """The text of an answer, and its values as an object."""
    if isinstance(found, list):
        kind = type(found[0]) if found else None
        if kind is Hit:
            return _hits(found, uri)
        if kind is FilePrediction:
            return _files(found)
        if not found:
            return "Nothing answers that. Try other words, or fewer filters.", {"results": []}
    return _of(found, uri)


@singledispatch
def _of(found: object, uri: Uri) -> Shown:  # noqa: ARG001  (others need it)
    values = msgspec.to_builtins(found)
    text = getattr(found, "text", None)
    if isinstance(text, str):  # what was made to be read by a model
        return text, {}
    lines = msgspec.json.format(msgspec.json.encode(found), indent=1).decode()
    return printable(lines), values if isinstance(values, dict) else {"results": values}


def _hits(hits: Iterable[Hit], uri: Uri) -> Shown:
    lines, values = [], []
    for place, hit in enumerate(hits, start=1):
        of = f"{hit.repository} " if hit.repository else ""
        lines.append(_line(f"{place}. {of}{hit.commit_hash[:12]} {hit.date[:10]} {hit.author}: {hit.subject}"))
        lines.append(_line(f"   why: {hit.why}"))
        lines.append(_line(f"   files: {_listed(hit.files)}"))
        lines += [_line(f"   | {line}") for line in hit.hunk.split("\n")[:HUNK_LINES]] if hit.hunk else []
        lines += [f"   {uri(hit.commit_hash)}"] if uri(hit.commit_hash) else []
        values.append({
            **({"repository": _line(hit.repository)} if hit.repository else {}),
            "commit_hash": hit.commit_hash, "date": hit.date[:10], "author": _line(hit.author),
            "subject": _line(hit.subject), "why": _line(hit.why), "files": [_line(path) for path in hit.files[:PATHS]],
            "more_files": max(0, len(hit.files) - PATHS), "uri": uri(hit.commit_hash),
        })  # fmt: skip
    return "\n".join(lines), {"commits": values}


def _files(files: Iterable[FilePrediction]) -> Shown:
    values = [{"path": _line(one.path), "score": round(one.score, 4), "why": _line(one.why)} for one in files]
    return "\n".join(f"{one['score']:.2f} {one['path']} ({one['why']})" for one in values), {"files": values}


@_of.register
def _commit(found: CommitDetail, uri: Uri) -> Shown:
    said = found.commit
    body = said.message_body.split("\n") if said.message_body else []
    lines = [
        _line(f"commit {said.commit_hash}"),
        _line(f"author {said.author_name}, branch {said.branch}"),
        _line(f"subject {said.message_subject}"),
        *(_line(f"    {line}") for line in body[:BODY_LINES]),
        said.diff_summary,
        *([f"merged by {said.merged_by}"] if said.merged_by else []),
        *([f"undoes {said.undoes}"] if said.undoes else []),
        *([f"same patch as {said.same_patch_as}"] if said.same_patch_as else []),
    ]
    for thread in found.threads:
        lines += [_line(f"| {line}") for line in told(thread).split("\n")[:BODY_LINES]]
    for hunk in found.hunks:
        lines.append(_line(f"--- {hunk.path}") + (f" ({hunk.cut:,} bytes left out)" if hunk.cut else ""))
        lines += [_line(line) for line in hunk.text.rstrip("\n").split("\n")]
    return "\n".join(lines), {
        "commit_hash": said.commit_hash, "subject": _line(said.message_subject), "author": _line(said.author_name),
        "branch": _line(said.branch), "insertions": said.insertions, "deletions": said.deletions,
        "files": [_line(path) for path in said.paths[: 5 * PATHS]], "more_files": max(0, len(said.paths) - 5 * PATHS),
        "undoes": said.undoes, "merged_by": said.merged_by, "uri": uri(said.commit_hash),
    }  # fmt: skip


@_of.register
def _brief(found: Brief, uri: Uri) -> Shown:
    themes = [
        {
            "name": _line(theme.name), "commits": len(theme.commits),
            "examples": [uri(one.commit_hash) for one in theme.examples],
        }
        for theme in found.themes
    ]  # fmt: skip
    return found.told(), {
        "since": found.since, "until": found.until, "commits": found.commits, "themes": themes,
        "question": found.question,
    }  # fmt: skip


@_of.register
def _suggestions(found: Suggestions, uri: Uri) -> Shown:
    lines = ["What the last commits are about:"]
    for theme in found.themes:
        examples = ", ".join(one.commit_hash[:12] for one in theme.examples)
        lines.append(_line(f"- {theme.name}: {len(theme.commits):,} commits, such as {examples}"))
    lines.append("Usually change together, and did not yet:")
    lines += [_line(f"- {one.path}: with {one.beside}, {one.together} of {one.changed} times") for one in found.open]
    lines.append(_line(f"Files that come next, by the {found.answered_by}: {found.why}"))
    lines += [_line(f"- {one.path} (last in {one.last[:12]})") for one in found.files]
    return "\n".join(lines), {
        "themes": [{"name": _line(theme.name), "commits": len(theme.commits)} for theme in found.themes],
        "open": [{"path": _line(one.path), "beside": _line(one.beside)} for one in found.open],
        "files": [{"path": _line(one.path), "last": uri(one.last)} for one in found.files],
        "answered_by": found.answered_by,
    }  # fmt: skip


@_of.register
def _status(found: Status, uri: Uri) -> Shown:  # noqa: ARG001
    behind = "; behind the repository: `treering index` brings it up to date" if found.behind else ""
    lines = [
        _line(f"{found.repo}: {found.commits:,} commits"),
        f"index: {found.indexed:,} commits, {found.vectors:,} vectors{behind}",
        _line(f"model: {found.verdict or 'none yet'}"),
    ]
    return "\n".join(lines), {"commits": found.commits, "indexed": found.indexed, "behind": found.behind}


def _line(text: str) -> str:
    shown = one_line(visible(text))
    return shown if len(shown) <= LINE else f"{shown[:LINE]}…"


def _listed(paths: Iterable[str]) -> str:
    listed = list(paths)
    more = f" and {len(listed) - PATHS:,} more" if len(listed) > PATHS else ""
    return ", ".join(listed[:PATHS]) + more
