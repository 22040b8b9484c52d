"""What a commit message refers to: people, issues, pull requests, other commits."""

import re
from collections.abc import Iterator

_TRAILER = re.compile(r"^[ \t]*(co-authored-by|fixes|closes|resolves|pr-url)[ \t]*:(.*)$", re.I | re.M)
_ISSUE = r"(?:(?P<repo>[\w.-]{1,100}/[\w.-]{1,100})?#|\bGH-|https?://[\w.-]{1,100}/(?P<path>[\w.-]{1,100}(?:/[\w.-]{1,100}){1,8}?)/(?:-/)?(?:issues|pull|merge_requests)/)(?P<number>[1-9][0-9]{0,8})\b"
_NUMBER = re.compile(r"(?<![\w#&/.-])" + _ISSUE)
_FIXES = re.compile(
    r"\b(?:fix(?:e[sd])?|close[sd]?|resolve[sd]?)\b:?[ \t]+(?=(?:[\w.-]{1,100}/[\w.-]{1,100})?#\d|GH-\d|https?://)",
    re.I,
)
_REVERTS = re.compile(r"\b[Tt]his (?:partially )?reverts (?:part of )?commit ([0-9a-f]{7,64})\b")
_PICKED = re.compile(r"\(cherry[- ]picked from commit ([0-9a-f]{7,64})\)")
_FIXES_COMMIT = re.compile(r"^([0-9a-f]{8,64})\b")
_PULL = (
    re.compile(r"^Merge pull request #(\d{1,9})\b"),
    re.compile(r"^Merge branch .*?\(#(\d{1,9})\)"),
    re.compile(r"\(#(\d{1,9})\)\s*$"),
    re.compile(r"\(pull request #(\d{1,9})\)\s*$"),
    re.compile(r"^Merged in .* \(pull request #(\d{1,9})\)"),
)
_GITLAB = re.compile(r"^See merge request (?:[\w./-]+)?!(\d{1,9})\s*$", re.M)


def pull_request(message: str) -> int | None:
    """The number of the pull or merge request that a message says it is, as the forges write it."""
    subject = message.partition("\n")[0]
    for pattern in _PULL:
        if found := pattern.search(subject):
            return int(found[1])
    found = _GITLAB.search(message)
    return int(found[1]) if found else None


def references(message: str) -> dict[str, tuple[str, ...]]:
    """What a message refers to, by kind; kinds with nothing are left out.

    ``co-authors`` are ``Name <address>``; ``fixes`` and ``issues`` are ``#12`` or ``owner/name#12`` (``fixes`` also
    abbreviated commits, as in kernel trailers); ``reverts`` and ``cherry-picked-from`` are commits;
    ``pull-requests`` are ``#12``.
    """
    found: dict[str, dict[str, None]] = {}
    for kind, value in _found(message):
        found.setdefault(kind, {})[value] = None
    return {kind: tuple(values) for kind, values in sorted(found.items())}


def _found(message: str) -> Iterator[tuple[str, str]]:
    if (number := pull_request(message)) is not None:
        yield "pull-requests", f"#{number}"
    for trailer, value in _TRAILER.findall(message):
        name, value = trailer.lower(), value.strip()
        if name == "co-authored-by":
            person, _, rest = value.partition("<")
            address, closed, _ = rest.partition(">")
            if address and closed:
                yield "co-authors", f"{person.strip()} <{address}>".strip()
        elif name == "pr-url":
            yield from (("pull-requests", issue) for issue in _issues(value))
        else:
            yield from (("fixes", issue) for issue in _issues(value))
            if commit := _FIXES_COMMIT.match(value):
                yield "fixes", commit[1]
    for keyword in _FIXES.finditer(message):
        if issue := _NUMBER.match(message, keyword.end()):
            yield "fixes", _named(issue)
    yield from (("reverts", commit) for commit in _REVERTS.findall(message))
    yield from (("cherry-picked-from", commit) for commit in _PICKED.findall(message))
    yield from (("issues", issue) for issue in _issues(message))


def _issues(text: str) -> Iterator[str]:
    return (_named(found) for found in _NUMBER.finditer(text))


def _named(found: re.Match[str]) -> str:
    return f"{found['repo'] or found['path'] or ''}#{found['number']}"
