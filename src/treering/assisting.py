"""The operations that assist: what the history holds on a question, answers that rest on it. Above ``learning.py``."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from treering.assist.ask import Answer as Answer
from treering.assist.ask import Asking, Citation, LocalModel, answer
from treering.assist.ask import By as By
from treering.assist.budget import Budget
from treering.assist.claude import Claude, Purse, key_of
from treering.assist.context import Audience as Audience
from treering.assist.context import ContextPack as ContextPack
from treering.assist.context import counter, pack
from treering.assist.evidence import Evidence, evidence
from treering.assist.facts import Fact, Sources, facts
from treering.assist.quoting import marked as marked
from treering.assist.quoting import visible as visible
from treering.errors import UsageError
from treering.finding import Desk, text_of, told
from treering.lm.generate import Writer
from treering.pipeline import models as model_stage
from treering.text.secrets import Redactor
from treering.types import day_of

CONTEXT_TOKENS = 8000
"""How large a context pack is where it is not said."""


def context(desk: Desk, question: str, *, budget: int = CONTEXT_TOKENS, audience: Audience = "claude") -> ContextPack:
    """What the history holds on a question, as one text for a model, within a budget of tokens: the commits that answer
    it with their best hunks, the files as they are now, and the commits they belong with. Every piece names its commit
    and is marked as data; secrets are taken out.
    """
    found = _evidence(desk.discreet if audience == "claude" else desk, question)
    told = list(facts(_sources(desk, audience), found))
    return pack(found.question, told, counter(audience, _model(desk, audience)), budget=budget, audience=audience)


def ask(
    desk: Desk,
    question: str,
    *,
    by: By = "auto",
    budget: int = CONTEXT_TOKENS,
    explain: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    unwanted: Callable[[], bool] = lambda: False,
    purse: Purse | None = None,
) -> Answer:
    """Answer a question from the history, with citations that are checked: by Claude if it can be asked, else by
    quoting the commits that tell of it. Where they tell too little, that is the answer.
    """
    found = _evidence(desk, question)

    @cache
    def told(audience: Audience = "local") -> Sequence[Fact]:
        seen = found
        if audience == "claude" and desk.discreet is not desk:  # a reason may tell of what is private, too
            known = {hit.commit_hash for hit in found.hits}
            seen = _evidence(desk.discreet, question)
            seen = replace(seen, hits=tuple(hit for hit in seen.hits if hit.commit_hash in known))
        return list(facts(_sources(desk, audience), seen))

    def packed(audience: Audience, most: int) -> ContextPack:
        return pack(
            found.question, told(audience), counter(audience, _model(desk, audience)), budget=most, audience=audience
        )

    def claude() -> Claude:
        return Claude(
            key_of(os.environ),
            desk.where.settings.assist,
            purse or Budget(desk.where.folder, desk.where.settings.budget),
        )

    def local() -> tuple[str, LocalModel]:
        folder = model_stage.named(desk.finder.store, "")
        return folder.name, (desk.lent or partial(Writer, gpu=desk.where.settings.train.gpu))(folder)

    return answer(
        Asking(found, told, packed, claude, local, lambda names: _cited(desk, names), budget, tell, unwanted),
        by, explain=explain,
    )  # fmt: skip


def _evidence(desk: Desk, question: str) -> Evidence:
    if not question.strip():
        raise UsageError("the question is empty", "say what you want to know")
    # Nothing in the index holds a secret, and nobody who answers needs one that was typed.
    asked = Redactor(desk.where.settings.scrape.allow_secrets)(text_of(question), Counter())
    return evidence(desk.finder, asked)


def _sources(desk: Desk, audience: Audience) -> Sources:
    """What facts are taken from. Claude is told of no commit that touches a private path."""
    desk = desk.discreet if audience == "claude" else desk
    return Sources(
        desk.finder, desk.shadow, desk.tip, lambda: desk.predictor.touches,
        Redactor(desk.where.settings.scrape.allow_secrets),
        discussed=lambda record: [told(thread) for thread in desk.discussed(record)],
    )  # fmt: skip


def _model(desk: Desk, audience: Audience) -> Path | None:
    """The current model, for whom it is needed. Raises :class:`ModelError` if there is none."""
    return model_stage.named(desk.finder.store, "") if audience == "local" else None


def _cited(desk: Desk, names: Sequence[str]) -> tuple[Citation, ...]:
    history = desk.finder.history
    records = desk.finder.store.records(ids=[int(history.ids[history.number[name]]) for name in names])
    return tuple(Citation(one.commit_hash, one.message_subject, day_of(one.commit_timestamp)) for one in records)
