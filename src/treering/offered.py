"""What the faces offer of a repository: each operation once, with what may be asked of it and what it answers.

The command line has a command for each, `serve` a path, and MCP a tool for those that a model uses. Bounds and
descriptions of what is asked stand here and nowhere else; what an operation does stands at its function.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta, Struct

from treering import assisting, deciding, improving, learning, operations
from treering.finding import LONGEST_QUERY, CommitDetail, Desk
from treering.gathering import Gathering
from treering.types import FilePrediction, Filters, Hit, Trend

ALL = "*"
"""In the place of a repository's name: all of a fleet."""

Text = Annotated[str, Meta(min_length=1, max_length=LONGEST_QUERY)]
Name = Annotated[str, Meta(max_length=1000)]
Limit = Annotated[int, Meta(ge=1, le=100, description="How many results at most.")]
At = Annotated[str, Meta(max_length=1000, description="Know only what is reachable from this commit.")]


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of an operation."""


class Filtered(Asked, frozen=True, kw_only=True):
    """Which commits may be found."""

    author: Annotated[Name, Meta(description="Only whose author's name or address holds this.")] = ""
    since: Annotated[Name, Meta(description="Only of that date or later: 2024-01-31, or `3 months ago`.")] = ""
    until: Annotated[Name, Meta(description="Only of that date or earlier.")] = ""
    branch: Annotated[Name, Meta(description="Only what is on this branch.")] = ""
    path: Annotated[Name, Meta(description="Only what changes this file or folder; may hold *.")] = ""
    kind: Annotated[Name, Meta(description="Only what changes a file of this kind: source, test, docs, …")] = ""
    include_merges: Annotated[bool, Meta(description="Find merges too.")] = False
    repositories: Annotated[
        tuple[Name, ...],
        Meta(max_length=100, description="Where many repositories are searched: only these; may hold *."),
    ] = ()

    @property
    def filters(self) -> Filters:
        return Filters(**{name: getattr(self, name) for name in Filtered.__struct_fields__})


class SearchAsked(Filtered, frozen=True, kw_only=True):
    query: Annotated[Text, Meta(description="What the commit did, in words; a hash, #123, a path or a quoted phrase.")]
    limit: Limit = 10
    at: At = ""


class SimilarAsked(Filtered, frozen=True, kw_only=True):
    commit: Annotated[Text, Meta(description="The commit's hash, or its beginning.")]
    limit: Limit = 10


class WhyAsked(Asked, frozen=True, kw_only=True):
    place: Annotated[Text, Meta(description="A file of the newest commit, or a line of it: FILE or FILE:LINE.")]
    limit: Limit = 10


class FilesAsked(Asked, frozen=True, kw_only=True):
    task: Annotated[Text, Meta(description="What is to be done, in words.")]
    given: Annotated[tuple[Name, ...], Meta(max_length=100, description="Files that are known to be part of it.")] = ()
    limit: Limit = 10
    at: At = ""


class CommitAsked(Asked, frozen=True, kw_only=True):
    commit: Annotated[Text, Meta(description="The commit's hash, or its beginning.")]


class SuggestAsked(Asked, frozen=True, kw_only=True):
    limit: Limit = 10


class BriefAsked(Asked, frozen=True, kw_only=True):
    since: Annotated[Name, Meta(description="From this date on: 2024-01-31, or `3 months ago`.")] = ""
    until: Annotated[Name, Meta(description="Up to this date.")] = ""
    limit: Annotated[int, Meta(ge=1, le=100, description="How many of each kind at most.")] = 8


class NothingAsked(Asked, frozen=True, kw_only=True):
    """Nothing more than of which repository."""


class RouteAsked(Asked, frozen=True, kw_only=True):
    task: Annotated[Text, Meta(description="What is to be done, in words.")]
    given: Annotated[tuple[Name, ...], Meta(max_length=100, description="Files that are known to be part of it.")] = ()
    budget: Annotated[int, Meta(ge=500, le=200_000, description="Tokens of context that Claude would be given.")] = (
        assisting.CONTEXT_TOKENS
    )


class SpendAsked(Asked, frozen=True, kw_only=True):
    since: Annotated[Name, Meta(description="Only of that day (UTC) or later: 2024-01-31, or `3 months ago`.")] = ""


class MonitorAsked(Asked, frozen=True, kw_only=True):
    since: Annotated[Name, Meta(description="Only runs of that date or later: 2024-01-31, or `3 months ago`.")] = ""


Question = Annotated[Text, Meta(description="What you want to know of the repository, in words.")]
Budget = Annotated[int, Meta(ge=1, le=1_000_000, description="How many tokens of context at most.")]


class ContextAsked(Asked, frozen=True, kw_only=True):
    question: Question
    budget: Budget = assisting.CONTEXT_TOKENS
    audience: Annotated[
        assisting.Audience,
        Meta(description="By whose tokenizer tokens are counted: Claude's, or the local model's."),
    ] = "claude"


class AskAsked(Asked, frozen=True, kw_only=True):
    question: Question
    by: Annotated[
        assisting.By,
        Meta(description="Claude, the local model, or the history by quoting; auto: Claude if it can be asked."),
    ] = "auto"
    budget: Budget = assisting.CONTEXT_TOKENS
    explain: Annotated[bool, Meta(description="Give the context that the answer rests on, too.")] = False


@dataclass(frozen=True, slots=True)
class Offer:
    """An operation as the faces offer it. ``told`` is what it does, for whoever chooses among them."""

    answer: Callable[[Desk, Any], object]
    asked: type[Asked]
    gives: Any
    told: str
    command: str
    """Its command on the command line."""
    tool: str = ""
    """Its name as a tool of MCP; empty where a model has no use for it."""
    settled: Mapping[str, object] = field(default_factory=dict)
    """What a tool does not ask: whoever is behind it, the answer is the same."""
    streamed: Callable[[Desk, Any, Callable[[str], None], Callable[[], bool]], object] | None = None
    """The same answer, told piece by piece while it is made, until it is unwanted; None where it is there at once."""
    across: Callable[[Gathering, Any, Collection[str] | None, bool], object] | None = None
    """The answer over many repositories, of those that are visible; discreetly, if it is read elsewhere."""


def _told(operation: Callable[..., object]) -> str:
    return " ".join((operation.__doc__ or "").split())


def _ask(
    desk: Desk,
    asked: AskAsked,
    tell: Callable[[str], None] = lambda _: None,
    unwanted: Callable[[], bool] = lambda: False,
) -> assisting.Answer:
    return assisting.ask(
        desk, asked.question, by=asked.by, budget=asked.budget, explain=asked.explain, tell=tell, unwanted=unwanted
    )


OFFERS: dict[str, Offer] = {
    "search": Offer(
        lambda desk, asked: desk.search(asked.query, limit=asked.limit, filters=asked.filters, at=asked.at),
        SearchAsked, list[Hit], _told(Desk.search), command="search", tool="search_commits",
        across=lambda over, asked, visible, discreet: over.search(
            asked.query, limit=asked.limit, filters=asked.filters, at=asked.at, visible=visible, discreet=discreet
        ),
    ),
    "similar": Offer(
        lambda desk, asked: desk.similar(asked.commit, limit=asked.limit, filters=asked.filters),
        SimilarAsked, list[Hit], _told(Desk.similar), command="similar",
        across=lambda over, asked, visible, discreet: over.similar(
            asked.commit, limit=asked.limit, filters=asked.filters, visible=visible, discreet=discreet
        ),
    ),
    "why": Offer(
        lambda desk, asked: desk.why(asked.place, limit=asked.limit),
        WhyAsked, list[Hit], _told(Desk.why), command="why", tool="why_line",
    ),
    "files": Offer(
        lambda desk, asked: desk.files(asked.task, limit=asked.limit, given=asked.given, at=asked.at),
        FilesAsked, list[FilePrediction], _told(Desk.files), command="files", tool="files_for_task",
    ),
    "commit": Offer(
        lambda desk, asked: desk.commit(asked.commit),
        CommitAsked, CommitDetail, _told(Desk.commit), command="show", tool="commit_detail",
    ),
    "suggest": Offer(
        lambda desk, asked: learning.suggest(desk, limit=asked.limit),
        SuggestAsked, learning.Suggestions, _told(learning.suggest), command="suggest", tool="suggest",
    ),
    "brief": Offer(
        lambda desk, asked: deciding.brief(desk, since=asked.since, until=asked.until, limit=asked.limit),
        BriefAsked, deciding.Brief, _told(deciding.brief), command="brief", tool="brief",
    ),
    "status": Offer(
        lambda desk, _: operations.status(desk.where),
        NothingAsked, operations.Status, _told(operations.status), command="status",
    ),
    "overview": Offer(
        lambda desk, _: deciding.overview(desk),
        NothingAsked, deciding.Overview, _told(deciding.overview), command="overview",
    ),
    "route": Offer(
        lambda desk, asked: deciding.route(desk, asked.task, given=asked.given, budget=asked.budget),
        RouteAsked, deciding.Route, _told(deciding.route), command="route",
    ),
    "spend": Offer(
        lambda desk, asked: deciding.spend(desk.where, since=asked.since),
        SpendAsked, deciding.Spending, _told(deciding.spend), command="spend",
    ),
    "monitor": Offer(
        lambda desk, asked: improving.monitor(desk.where, since=asked.since),
        MonitorAsked, Trend, _told(improving.monitor), command="monitor",
    ),
    "context": Offer(
        lambda desk, asked: assisting.context(desk, asked.question, budget=asked.budget, audience=asked.audience),
        ContextAsked, assisting.ContextPack, _told(assisting.context), command="context", tool="context_pack",
        settled={"audience": "claude"},  # private paths are left out: whoever reads it may be anyone
    ),
    "ask": Offer(
        _ask, AskAsked, assisting.Answer, _told(assisting.ask), command="ask", streamed=_ask,
    ),
}  # fmt: skip
"""By the name that each has as a path under ``/v1/``."""
QUICK = frozenset({"search", "similar", "commit", "files", "context"})
"""What is answered in some hundredths of a second, and by one repository of a fleet, too. All else has threads of its
own, and is asked of a repository that is served by itself.
"""
