"""Answers to questions about a repository, resting on its history: by Claude, by the local model, or, without any
model, by quoting the commits that tell of it. Every citation is checked, and thin evidence is said to be thin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from msgspec import Struct

from treering.assist.citations import Checked
from treering.assist.claude import Claude, Prompt, Said
from treering.assist.context import Audience, ContextPack
from treering.assist.evidence import Evidence
from treering.assist.facts import Fact
from treering.assist.quotations import quotations
from treering.assist.quoting import visible
from treering.errors import BudgetError, MissingExtra, ModelError, ServiceError, StoreError, UsageError
from treering.store.ledger import Usage
from treering.types import Generated, Sampling

By = Literal["auto", "claude", "local", "history"]
Tell = Callable[[str], None]

SYSTEM = """\
You answer a developer's questions about a Git repository from quotations of its history. Rest on them alone. After \
each statement cite the commit that it rests on, in brackets, as its mark names it: [abc1234]. Say nothing that no \
quotation supports; where they do not answer the question, say that, and cite what comes nearest. Be brief, in plain \
text, in the language of the question."""

LOCAL_TOKENS = 256
"""How long the local model's answer is at most."""


class Citation(Struct, frozen=True):
    """A commit that an answer rests on."""

    commit_hash: str
    subject: str
    date: str


class Answer(Struct, frozen=True):
    """An answer, who gave it and why they did, and what it rests on.

    Every citation in ``answer`` is of a commit in ``citations``, which was in the context; ``unsupported`` are those
    that were taken out because theirs was not. ``thin``: the history holds too little, and that is the answer. Tokens
    and dollars are what was spent on it, also where in the end the history answered.
    """

    question: str
    answer: str
    answered_by: Literal["claude", "local", "history"]
    why: str
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[str, ...] = ()
    thin: bool = False
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    context: ContextPack | None = None


class LocalModel(Protocol):
    """A language model that is loaded."""

    @property
    def longest(self) -> int | None:
        """How many tokens it reads, prompt and answer together."""

    def encoded(self, prompt: str) -> list[int]:
        """The ids of a prompt."""

    def write(
        self, prompt: str, sampling: Sampling, *, tell: Tell = ..., unwanted: Callable[[], bool] = ...
    ) -> Generated:
        """Go on from a prompt."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One question with all that may be needed to answer it, each made when it is: the facts, a pack of them for an
    audience within a budget, Claude (raises where it cannot be asked), the local model with its name, and the subjects
    and dates of commits.
    """

    found: Evidence
    facts: Callable[[], Sequence[Fact]]
    pack: Callable[[Audience, int], ContextPack]
    claude: Callable[[], Claude]
    local: Callable[[], tuple[str, LocalModel]]
    cited: Callable[[Sequence[str]], tuple[Citation, ...]]
    budget: int
    tell: Tell = field(default=lambda _: None)
    unwanted: Callable[[], bool] = field(default=lambda: False)

    @property
    def question(self) -> str:
        return visible(self.found.question)


def answer(asking: Asking, by: By, *, explain: bool = False) -> Answer:
    """The answer, told piece by piece as it is made. Nothing that cites nothing of the context is ever told.

    With ``auto`` Claude answers if it can be asked, else the history, and why is said; with ``claude`` it is an error
    (:class:`ServiceError`, :class:`BudgetError`) if it cannot. Where the evidence is thin, nobody is asked.
    """
    if asking.found.thin:
        return _thin(asking)
    if by == "history":
        return _history(asking, "it was asked for", explain=explain)
    if by == "local":
        return _by_local(asking, explain=explain)
    told: list[str] = []
    try:
        return _by_claude(
            asking, told, explain=explain, why="it was asked for" if by == "claude" else "it can be asked"
        )
    except (ServiceError, BudgetError, MissingExtra, StoreError) as error:  # the last: nothing can be reserved
        if by == "claude" or told:
            raise
        return _history(asking, f"Claude did not answer: {error.message}", explain=explain)


def _by_claude(asking: Asking, told: list[str], *, explain: bool, why: str) -> Answer:
    claude = asking.claude()
    pack = asking.pack("claude", asking.budget)
    if not pack.facts:
        return _history(asking, "what answers it is private, and Claude is not told of it", explain=explain)

    def tell(piece: str) -> None:
        told.append(piece)
        asking.tell(piece)

    checked = Checked([fact.commit_hash for fact in pack.facts], lambda piece: tell(visible(piece)))
    said = claude.ask(
        Prompt(SYSTEM, pack.text, f"Question: {asking.question}"),
        purpose="ask",
        tell=checked.feed,
        unwanted=asking.unwanted,
    )
    return _checked(asking, checked, pack, said, "claude", why, explain=explain)


def _by_local(asking: Asking, *, explain: bool) -> Answer:
    name, model = asking.local()
    why = "it was asked for; no local model was shown to be better at this than the history alone"
    end = f"\nQuestion: {asking.question}\nAnswer, with the commit each sentence rests on in brackets:"
    room, most = asking.budget, LOCAL_TOKENS
    if model.longest is not None:
        most = min(most, model.longest // 4)
        room = min(room, model.longest - len(model.encoded(end)) - most)
    try:
        pack = asking.pack("local", room)
    except UsageError as error:
        if room == asking.budget:
            raise
        raise ModelError(
            f"the local model reads {model.longest:,} tokens, which hold no context: {error.message}",
            "ask with another --by, or train a model that reads more",
        ) from error
    checked = Checked([fact.commit_hash for fact in pack.facts], lambda piece: asking.tell(visible(piece)))
    sampling = Sampling(max_tokens=most, temperature=0, repetition_penalty=1.1, stop=("\nQuestion:",))
    made = model.write(f"{pack.text}{end}", sampling, tell=checked.feed, unwanted=asking.unwanted)
    said = Said(made.text, name, Usage(made.prompt_tokens, made.tokens), 0.0, made.ended_by)
    return _checked(asking, checked, pack, said, "local", why, explain=explain)


def _checked(
    asking: Asking,
    checked: Checked,
    pack: ContextPack,
    said: Said,
    by: Literal["claude", "local"],
    why: str,
    *,
    explain: bool,
) -> Answer:
    """A model's answer without what it cannot cite; the history's where nothing is left to rest on."""
    text = visible(checked.close()).strip()
    used = said.usage
    spent: dict[str, Any] = {
        "unsupported": tuple(checked.unsupported),
        "model": said.model,
        "input_tokens": used.input_tokens + used.cache_write_5m + used.cache_write_1h + used.cache_read,
        "output_tokens": used.output_tokens,
        "dollars": said.dollars,
        "context": pack if explain else None,
    }
    if not checked.cited and said.ended_by != "left":
        who = "Claude" if by == "claude" else "the local model"
        return _history(asking, f"{who} answered without a citation of what it was given", **spent)
    if said.ended_by == "max_tokens" or (by == "local" and said.ended_by == "length"):
        why += "; the answer was cut at its longest"
    return Answer(asking.question, text, by, why, asking.cited(checked.cited), **spent)


def _history(asking: Asking, why: str, *, explain: bool = False, **spent: Any) -> Answer:
    """The commits that tell most of it, in their own words."""
    said, cited = quotations(asking.facts(), asking.found.rarity)
    text = visible(said)
    asking.tell(text)
    if explain:
        spent["context"] = asking.pack("claude", asking.budget)
    spent.setdefault("unsupported", ())
    return Answer(asking.question, text, "history", why, asking.cited(cited), **spent)


def _thin(asking: Asking) -> Answer:
    """What is said where the history holds too little."""
    found = asking.found
    missing = [word for word in found.missing if len(word) > 2][:6]
    said = ["The history of this repository holds too little on this to answer from it."]
    if missing:
        said.append(f"No commit holds {', '.join(f'“{visible(word)}”' for word in missing)}.")
    if found.hits and found.coverage > 0:
        share = f"The nearest commit holds {found.coverage:.0%} of the question's words by weight"
        said.append(f"{share}{'' if found.cosine is None else f', at a nearness in meaning of {found.cosine:.2f}'}.")
    said.append(
        "It may help to use the names that the code uses, to ask `treering search` for single words, or to run"
        " `treering index` if the repository has moved on."
    )
    text = "\n".join(said)
    asking.tell(text)
    return Answer(asking.question, text, "history", "the evidence is thin", thin=True)
