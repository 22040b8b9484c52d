"""model → what it is worth on the repository's own later commits: ``evaluation.json`` beside it."""

import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from treering.config import Settings
from treering.errors import DataError
from treering.files import read_json, write_json
from treering.git.shadow import Source, shadow_of
from treering.lm.base import SCRATCH, load_base, load_model
from treering.lm.data import HOLD_OUT_TOKENS, TOO_FEW
from treering.lm.evaluate import NGRAM_BYTES, judge, token_losses
from treering.lm.scorer import Scorer
from treering.lm.tasks import TaskRow
from treering.lm.yardsticks import (
    BASE_SHOWN,
    TUNED_SHOWN,
    WHOLE,
    PartRow,
    Span,
    Told,
    ngram_bits,
    part_row,
    token_bits,
    xz_bits,
)
from treering.pipeline import tasks
from treering.pipeline.common import caps_of
from treering.pipeline.learn import TrainingReport, report_of
from treering.pipeline.propose import Mixture, Proposer
from treering.pipeline.tokenize import told_records
from treering.report import Reporter
from treering.search.commits import Finder
from treering.store import Store
from treering.text.strategies import BODY_CHARACTERS, NEEDS_PATCHES, Telling, documents
from treering.tokens.encoding import Encoder
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import Record

EVALUATION = "evaluation.json"
WINDOW = 1024
"""Tokens of a prompt that a model reads at most: what costs seconds on two cores."""
LETTERS = 8
"""A token hardly has more bytes on average."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on commits that are later than all that the model learned from. ``mixture`` and ``opinions``
    are the weights that a model has in the tasks, fitted on all of them; the figures are of weights fitted on others.
    """

    verdict: str
    model: str
    made: str
    seconds: float
    held_out_first: str
    commits: int
    perplexity: dict[str, float]
    parts: tuple[PartRow, ...]
    tasks: tuple[TaskRow, ...] = ()
    mixture: Mixture | None = None
    opinions: dict[str, float] = field(default_factory=dict)

    def won(self, task: str) -> bool:
        """Whether the model may answer a user in a task: it beat what needs none by the task's first measure."""
        return next((row.won for row in self.tasks if row.task == task), False)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The later commits with their documents, oldest first, and the newest of the text before them."""

    history: bytes
    records: list[Record]
    documents: list[Told]


def evaluation_of(model: Path) -> Evaluation | None:
    """What was measured of a model; None where it was not."""
    path = model / EVALUATION
    return read_json(path, Evaluation) if path.is_file() else None


def held_out(store: Store, source: Source, settings: Settings, learned: TrainingReport, most: int) -> HeldOut:
    """The newest ``most`` commits from the first that was held out on; those that repeat another are left out.

    Raises :class:`DataError` if that commit is gone.
    """
    caps = caps_of(settings) if learned.strategy in NEEDS_PATCHES else None
    kinds = store.paths()
    telling = Telling(lambda path: kinds.get(path, ""))
    before = bytearray()
    later: deque[tuple[Record, Told]] = deque()
    first: Record | None = None
    with told_records(store, source, settings, caps) as every:
        for record, document in documents(every, learned.strategy, telling):
            first = record if record.commit_hash == learned.first else first
            if document.duplicate_of is not None:
                continue
            text = document.text.encode()
            # A branch that came later can put an older commit behind it.
            if first is None or record.commit_timestamp < first.commit_timestamp:
                before += text
            else:
                later.append((replace(record, patches=()), Told(text, parts_of(record, text, learned.strategy))))
                if len(later) > most:
                    before += later.popleft()[1].text
            if len(before) > 2 * NGRAM_BYTES:
                del before[:-NGRAM_BYTES]
    if first is None:
        raise DataError(
            f"the history no longer holds commit {learned.first[:12]}, from which on the model was judged",
            "run `treering train` again",
        )
    if not later:
        raise DataError("every later commit repeats an earlier one: nothing is left to judge on", "commit more")
    return HeldOut(bytes(before[-NGRAM_BYTES:]), [record for record, _ in later], [told for _, told in later])


def parts_of(record: Record, text: bytes, strategy: str) -> dict[str, Span]:
    """Where the message and the paths lie in a document, in bytes, by the way it is told; nothing where its lines are
    mixed with others.
    """
    found: dict[str, Span] = {WHOLE: (0, len(text))}
    if strategy == "flat":
        begin = text.find(b"\n") + 1
        end = begin + len(record.message.encode())
        return found | {"message": (begin, end)} | ({"paths": (end + 1, len(text))} if record.stats else {})
    subject = f"\n<MESSAGE> {record.message_subject}"
    begin = text.find(subject.encode())
    if begin < 0:
        return found
    end = begin + len(subject.encode())
    if strategy != "diff-aware":
        body = f"\n<BODY> {record.message_body[:BODY_CHARACTERS]}" if record.message_body else ""
        end += len(body.encode())
        if (paths := text.find(b"\n<PATH>", end)) >= 0:
            found["paths"] = (paths, len(text))
    return found | {"message": (begin + len("\n<MESSAGE>"), end)}


def measured(
    tokenizer: TextTokenizer,
    base: Any,
    tuned: Any,
    learned: TrainingReport,
    held: HeldOut,
    report: Reporter,
    *,
    gpu: bool,
) -> tuple[list[PartRow], str, dict[str, float]]:
    """The base and the tuned model and the yardsticks on the later commits: the row of each part, and the verdict."""
    read = Encoder(tokenizer)([document.text.decode() for document in held.documents])
    # A token ends where the next one begins.
    encoded = [
        (ids, np.append(begins[1:], len(document.text)))
        for (ids, begins), document in zip(read, held.documents, strict=True)
    ]
    first = _first_within([len(ids) for ids, _ in encoded])
    history = held.history + b"".join(document.text for document in held.documents[:first])
    documents, encoded = held.documents[first:], encoded[first:]
    report.say(f"judging on {len(documents):,} later commits")
    streams = [ids.astype(np.int64) for ids, _ in encoded]
    window, eos = learned.recipe.sequence_length, tokenizer.eos_id
    nats = {
        "base": token_losses(base, streams, eos, window, gpu=gpu),
        "tuned": token_losses(tuned, streams, eos, window, gpu=gpu),
    }
    # What the yardsticks go on learning from, a model may read: the text before, the later commits too.
    longest = min(WINDOW, getattr(tuned.config, "max_position_embeddings", None) or WINDOW)
    if (shown := longest // 2) >= window:
        end = history[-LETTERS * longest :].decode("utf-8", "ignore")
        before = np.array(Encoder(tokenizer)([end])[0][0], np.int64)
        for name, model in ((BASE_SHOWN, base), (TUNED_SHOWN, tuned)):
            nats[name] = token_losses(model, streams, eos, longest - shown, gpu=gpu, before=before, shown=shown)
    ngram, xz = ngram_bits(history, documents), xz_bits(history, documents)
    rows = []
    for part in (WHOLE, "message", "paths"):
        spans = [document.parts.get(part, (0, 0)) for document in documents]
        costs = {
            name: np.array(
                [token_bits(one, ends, span) for one, (_, ends), span in zip(of, encoded, spans, strict=True)]
            )
            for name, of in nats.items()
        }
        costs["ngram"] = np.array([one[begin:end].sum() for one, (begin, end) in zip(ngram, spans, strict=True)])
        costs["xz"] = xz.get(part, np.zeros(len(spans)))
        if row := part_row(part, costs, documents, learned.recipe.seed):
            rows.append(row)
    sums = {name: np.array([one.sum() for one in nats[name]]) for name in ("base", "tuned")}
    ngram_nats = np.array([one.sum() * np.log(2) for one in ngram])
    sizes = [len(document.text) for document in documents]
    tokens = sum(map(len, streams))
    told = judge(sums["base"], sums["tuned"], ngram_nats, tokens, sizes, learned.recipe.seed)
    return rows, told.verdict, {name: round(math.exp(float(of.sum()) / tokens), 3) for name, of in sums.items()}


def _first_within(tokens: Sequence[int]) -> int:
    """The oldest document from which on all together are short enough; as many as a figure needs always are."""
    total = np.cumsum(tokens[::-1])
    return max(0, len(tokens) - max(TOO_FEW, int((total <= HOLD_OUT_TOKENS).sum())))


def evaluate(
    folder: Path,
    finder: Finder,
    source: Source,
    settings: Settings,
    report: Reporter,
    *,
    asked: Collection[str],
    most: int,
) -> Evaluation:
    """Measure a model on the newest ``most`` later commits and keep the result beside it, whole or not at all. Of the
    tasks that are not ``asked`` for, what was measured before is kept.
    """
    started = time.monotonic()
    learned = report_of(folder)
    tokenizer, tuned = load_tokenizer(str(folder)), load_model(folder)
    base = base_of(folder, learned, tokenizer)
    held = held_out(finder.store, source, settings, learned, most)
    parts, verdict, perplexity = measured(tokenizer, base, tuned, learned, held, report, gpu=settings.train.gpu)
    scorers = {tasks.BASE: Scorer(base, tokenizer, WINDOW), tasks.MODEL: Scorer(tuned, tokenizer, WINDOW)}
    proposer = Proposer(finder, scorers[tasks.MODEL])
    cases = tasks.cases_of(proposer, held.records)
    before = evaluation_of(folder)
    made = Evaluation(
        verdict=verdict,
        model=folder.name,
        made="",
        seconds=0.0,
        held_out_first=learned.first,
        commits=len(held.records),
        perplexity=perplexity,
        parts=tuple(parts),
        tasks=before.tasks if before else (),
        mixture=before.mixture if before else None,
        opinions=before.opinions if before else {},
    )
    judge_files = {"files": tasks.files, "next": tasks.upcoming}
    with shadow_of(source) as shadow:
        for task in ("", *(task for task in tasks.TASKS if task in asked and cases)):
            rows: list[TaskRow] = []
            mixture, opinions = made.mixture, dict(made.opinions)
            if task == "completion":
                rows, mixture = tasks.completion(proposer, scorers, cases, report, learned.recipe.seed)
            elif task == "message":
                rows = tasks.message(proposer, cases, report, learned.recipe.seed)
            elif task:
                rows, opinions[task] = judge_files[task](proposer, cases, shadow, report, learned.recipe.seed)
            others = [row for row in made.tasks if row.task != task]
            made = replaced(
                made,
                made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                seconds=round(time.monotonic() - started, 1),
                tasks=tuple(sorted([*others, *rows], key=lambda row: tasks.TASKS.index(row.task))),
                mixture=mixture,
                opinions=opinions,
            )
            write_json(folder / EVALUATION, made)  # after every task: an interrupt loses only the one under way
    return made


def base_of(folder: Path, learned: TrainingReport, tokenizer: TextTokenizer) -> Any:
    """The model in ``folder`` as it was before its training: the base, or the model that it went on from."""
    if learned.parent:
        return load_model(folder.parent / learned.parent)
    first, marked = learned.vocab_size - len(tokenizer.added), tokenizer.added and learned.base_model != SCRATCH
    words = load_tokenizer(learned.base_model).encode(tokenizer.added) if marked else []
    added = dict(enumerate(words, start=first))
    length, seed = learned.recipe.sequence_length, learned.recipe.seed
    return load_base(learned.base_model, learned.vocab_size, added, positions=length, seed=seed)
