"""Test, then train: what the current model makes of new commits before anything learns from them (Dawid, 1984, called
such a test prequential). Each commit is tested once, by the model of its day.
"""

import math
import time
from collections.abc import Set
from pathlib import Path

import numpy as np
from msgspec import Struct

from treering.lm.base import load_model
from treering.lm.evaluate import document_losses
from treering.pipeline.learn import report_of
from treering.store import Store
from treering.tokens.pack import Ids
from treering.types import Corpus

MOST_TOKENS = 32_768
"""Of many new commits the newest are tested: a minute's work."""


class Tested(Struct, frozen=True):
    """How a model did on commits that it never saw. ``left_out`` are those that were too many, or repeat another."""

    model: str
    commits: int
    bytes: int
    bits_per_byte: float
    left_out: int


def mark(store: Store, model: Path, stage: str) -> int:
    """The number in the store of the newest commit that a model or a run of ``stage`` has dealt with: what was stored
    later is new, wherever in the history it stands. 0 where the model's own are not known here.
    """
    report = report_of(model)
    own = store.number_of(report.last or report.first)
    told = store.last_runs().get(stage, {}).get("through", 0)
    return max(own, int(told)) if own else 0  # type: ignore[call-overload]  # JSON


def new_commits(store: Store, after: int) -> Set[str]:
    """The reachable commits that were stored after a mark and are no rebased copies of earlier ones."""
    return store.stored_after(after) - store.twins_of_vanished(after)


def test(store: Store, corpus: Corpus, ids: Ids, model: Path, names: Set[str], *, gpu: bool) -> Tested | None:
    """Judge a model on these commits, and remember that and their single figures; None where none of them has a text of
    its own.
    """
    started = time.time()
    through = store.newest_number()
    stops = np.cumsum([span.tokens + (corpus.eos_id >= 0) for span in corpus.documents])
    starts = np.concatenate(([0], stops[:-1]))
    chosen: list[int] = []
    tokens = 0
    for number in range(len(corpus.documents) - 1, -1, -1):
        span = corpus.documents[number]
        if span.commit_hash in names and span.tokens and span.bytes and span.duplicate_of is None:
            tokens += span.tokens
            if chosen and tokens > MOST_TOKENS:
                break
            chosen.insert(0, number)
    if not chosen:
        return None
    spans = [corpus.documents[number] for number in chosen]
    documents = [
        np.asarray(ids[starts[number] : starts[number] + span.tokens], np.int64)
        for number, span in zip(chosen, spans, strict=True)
    ]
    window = report_of(model).recipe.sequence_length
    bits = document_losses(load_model(model), documents, corpus.eos_id, window, gpu=gpu) / math.log(2)
    sizes = [span.bytes for span in spans]
    told = Tested(
        model.name, len(chosen), sum(sizes), round(float(bits.sum()) / sum(sizes), 4), len(names) - len(chosen)
    )
    with store.writing("treering learn"):
        cases = [[round(float(bit), 2), size] for bit, size in zip(bits, sizes, strict=True)]
        store.log_run(
            "test", started,
            {"model": told.model, "commits": told.commits, "bits_per_byte": told.bits_per_byte, "through": through,
             "cases": cases},
        )  # fmt: skip
    return told
