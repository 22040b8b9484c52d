"""A review as one comment: its Markdown, and how there is one of it, however often and by how many it is made.

All that comes from the repository stands in code: nothing of it formats, links, or calls anybody.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from msgspec import Struct

from treering.errors import ServiceError
from treering.operate.forge import Comment, Forge
from treering.operate.rest import Missing, Refused, Unclear
from treering.operate.review import MENDED_DAYS, Review, Risk
from treering.report import in_code

MARKER = "<!-- treering: what the history says of this change -->"
"""How our comment is found again: it begins with this, and our account wrote it."""
ACTIONS = "github-actions[bot]"
TRIES = 3
LONGEST = 200

Done = Literal["created", "updated", "unchanged"]


class Posted(Struct, frozen=True):
    """What became of the comment; ``removed`` are its twins."""

    done: Done
    id: int
    url: str
    removed: int = 0


def markdown(told: Review, commit_url: Callable[[str], str]) -> str:
    """The comment's text. It says only what was counted, and what that rests on."""
    return "\n".join((MARKER, *_lines(told, commit_url), ""))


def _lines(told: Review, commit_url: Callable[[str], str]) -> Iterator[str]:
    yield "### What the history says of this change"
    yield ""
    yield (
        f"{told.known:,} of its {_counted(told.files, 'file')} changed before, in a history of"
        f" {_counted(told.commits, 'commit')}."
    )
    if told.absent:
        yield from ("", "**Files that usually change together with these, and do not here**", "")
        for one in told.absent:
            often = f"{one.together:,} of the {_counted(one.changed, 'commit')}"
            yield f"- {_code(one.path)}: in {often} of {_code(one.beside)}"
    if told.related:
        yield from ("", "**Commits that did something like it**", "")
        for hit in told.related:
            named = f"[{_code(hit.commit_hash[:10])}]({commit_url(hit.commit_hash)})"
            yield f"- {named} {_code(hit.subject or '(no subject)')}, {hit.date}, {_code(hit.author)}"
    if told.reviewers:
        yield from ("", "**Who changed these files most and last**", "")
        for who in told.reviewers:
            account = f" ({_code(who.handle)})" if who.handle else ""
            yield f"- {_code(who.name)}{account}: {_counted(who.commits, 'commit')}, the last on {who.last}"
    yield from ("", "**Risk, by what came of earlier changes**", "")
    yield from _risk(told.risk)
    yield from (
        "",
        "<sub>Counted by treering from the commits of this repository. It is updated with the change.</sub>",
    )


def _risk(risk: Risk) -> Iterator[str]:
    if risk.level == "unknown":
        yield f"- These files changed {risk.changes:,} times so far: too few to tell how often that had to be mended."
    else:
        word = {"higher": "Higher than usual", "usual": "As usual", "lower": "Lower than usual"}[risk.level]
        yield (
            f"- {word}: {risk.mended:,} of {risk.changes:,} earlier changes of these files ({risk.share:.0%}; 95 %"
            f" interval {risk.low:.0%} to {risk.high:.0%}) were followed within {MENDED_DAYS} days by a commit on the"
            f" same file whose subject speaks of a fix or a revert. Over all files it is {risk.usual:.0%}."
        )
    if risk.larger_than is not None:
        yield f"- It changes {_counted(risk.lines, 'line')}: more than {risk.larger_than:.0%} of the commits so far."


def _code(text: str) -> str:
    return in_code(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def post(forge: Forge, number: int, body: str, *, in_actions: bool = False) -> Posted:
    """Make the one comment say ``body``: update the one that is there, else create it, then look again whether somebody
    else did at the same time; the earliest stays. Where it is not known whether a comment was created, that is looked
    up, never tried blindly.
    """
    me = forge.me() or (ACTIONS if in_actions else "")
    for attempt in range(TRIES):
        try:
            return _posted(forge, number, body, me)
        except Unclear:
            if attempt == TRIES - 1:
                raise
    raise AssertionError  # the last attempt returns or raises


def _posted(forge: Forge, number: int, body: str, me: str) -> Posted:
    there = list(_ours(forge.comments(number), me))
    created = None
    if not there:
        created = forge.create(number, body)
        there = list(_ours(forge.comments(number), me or created.author)) or [created]
    removed = 0
    first, *twins = sorted(there, key=lambda one: one.id)
    for twin in twins:
        forge.delete(number, twin.id)
        removed += 1
    if created and first.id == created.id:
        return Posted("created", first.id, created.url or first.url, removed)
    if first.body.replace("\r\n", "\n").strip() == body.strip():
        return Posted("unchanged", first.id, first.url, removed)
    try:
        made = forge.update(number, first.id, body)
    except Missing as error:  # somebody deleted it meanwhile: as if it had not been there
        raise Unclear(error.message, error.hint) from error
    except Refused as error:
        raise ServiceError(f"our comment may not be changed: {error.message}", error.hint) from error
    return Posted("updated", made.id, made.url or first.url, removed)


def _ours(comments: Iterable[Comment], me: str) -> Iterator[Comment]:
    """Those with our marker that our account wrote; where that is not known, that a program wrote. Anybody can copy a
    marker.
    """
    for one in comments:
        if one.body.startswith(MARKER) and (one.author == me if me else one.bot):
            yield one
