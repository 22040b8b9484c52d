"""records → token streams, each with its data card."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from treering.config import Settings
from treering.errors import DataError
from treering.files import write_json
from treering.git.reader import Caps, Reader, Source, open_reader
from treering.lm.base import SCRATCH
from treering.pipeline.common import caps_of, fingerprint_of, keep_newest, read, write_manifest
from treering.report import Reporter
from treering.store import Store
from treering.text import secrets, strategies
from treering.text.strategies import MARKERS, NEEDS_PATCHES, Telling, documents
from treering.tokens.encoding import Encoder, tokenized
from treering.tokens.pack import read_stream, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import Amount, Content, Corpus, LeftOut, Record, TokenDocument

CARD = "dataset.json"


class Dataset(Struct, frozen=True):
    """``dataset.json``: what a token stream is made of, and what of the history is not in it. Nothing in it depends on
    when or where it was made: who has the same ``sha256`` has the same tokens of the same commits.
    """

    sha256: str
    repo: str
    strategy: str
    tokenizer: str
    tokenizer_fingerprint: str
    added_tokens: tuple[str, ...]
    commits: int
    documents: int
    bytes: int
    tokens: int
    content: dict[Content, Amount]
    end_of_text: int
    repeats: dict[str, int]
    left_out: dict[str, LeftOut]
    secrets_redacted: int


class _Content:
    """Passes documents on and adds up what they tell."""

    def __init__(self) -> None:
        self.amounts: dict[Content, Amount] = {}
        self.redacted = 0

    def of(self, encoded: Iterable[tuple[Record, TokenDocument]]) -> Iterator[TokenDocument]:
        for record, document in encoded:
            self.redacted += sum(record.redacted.values())
            for content, amount in document.content.items():
                before = self.amounts.get(content, Amount(0, 0))
                self.amounts[content] = Amount(before.bytes + amount.bytes, before.tokens + amount.tokens)
            yield document


def token_documents(
    records: Iterable[Record], strategy: str, tokenizer: TextTokenizer, telling: Telling, report: Reporter
) -> Iterator[tuple[Record, TokenDocument]]:
    """Records told by a strategy and encoded, in order; repeated ones say whom they repeat."""
    encoder = Encoder(tokenizer)
    if encoder.why_not:
        report.detail(f"encoding with Hugging Face tokenizers, not tiktoken: {encoder.why_not}")
    return tokenized(documents(records, strategy, telling), encoder)


def tokenizer_for(model: str, *, markers: str) -> TextTokenizer:
    """The tokenizer of a model, with the markers added to it if they are to be tokens."""
    return load_tokenizer("gpt2" if model == SCRATCH else model, MARKERS if markers == "tokens" else ())


def tokenize(store: Store, source: Source, settings: Settings, report: Reporter) -> tuple[Path, Corpus]:
    """The store's history as a token stream, made once for each combination of history and settings."""
    started = time.time()
    tokenizer = tokenizer_for(settings.train.model, markers=settings.tokens.markers)
    strategy, length = settings.tokens.strategy, settings.tokens.sequence_length
    caps = caps_of(settings) if strategy in NEEDS_PATCHES else None
    name = fingerprint_of(
        strategies.FINGERPRINT,
        strategy,
        length,
        tokenizer.fingerprint,
        caps and asdict(caps),
        secrets.RULES,
        settings.scrape.allow_secrets,
        store.history_fingerprint(),
    )
    folder = store.folder / "tokens" / name
    if all((folder / name).is_file() for name in ("header.json", "tokens.bin", CARD)):
        return folder, read_stream(folder)[0]
    kinds = store.paths()
    telling, content = Telling(lambda path: kinds.get(path, "")), _Content()
    with store.writing("treering tokenize"), told_records(store, source, settings, caps) as told:
        tracked = report.track(told, store.count(), "tokenising")
        encoded = token_documents(tracked, strategy, tokenizer, telling, report)
        corpus = write_stream(
            folder,
            content.of(encoded),
            tokenizer=tokenizer, repo=store.fact("repo") or "", strategy=strategy, length=length,
        )  # fmt: skip
        tokenizer.save(folder)
        card = Dataset(
            sha256=corpus.sha256,
            repo=corpus.repo,
            strategy=strategy,
            tokenizer=tokenizer.name,
            tokenizer_fingerprint=corpus.tokenizer_fingerprint,
            added_tokens=tokenizer.added,
            commits=store.count(),
            documents=len(corpus.documents),
            bytes=sum(span.bytes for span in corpus.documents),
            tokens=corpus.total_tokens,
            content=content.amounts,
            end_of_text=len(corpus.documents),
            repeats=dict(sorted(telling.duplicates.found.items())),
            left_out=dict(sorted(telling.left_out.items())),
            secrets_redacted=content.redacted,
        )
        write_json(folder / CARD, card)  # last: with it, all is there
        keep_newest(folder.parent, {folder.name})
        store.log_run(
            "tokenize",
            started,
            {
                "tokens": corpus.total_tokens,
                "documents": len(corpus.documents),
                "left_out": {reason: to_builtins(amount) for reason, amount in card.left_out.items()},
            },
        )
        write_manifest(store)
    return folder, corpus


@contextmanager
def told_records(store: Store, source: Source, settings: Settings, caps: Caps | None) -> Iterator[Iterator[Record]]:
    """The store's records; with their hunks, read from git again, if ``caps`` is given."""
    if caps is None:
        yield store.records()
        return
    with open_reader(source, settings.scrape) as reader:
        yield _with_patches(store, reader, settings, caps)


def _with_patches(store: Store, reader: Reader, settings: Settings, caps: Caps) -> Iterator[Record]:
    places = {node.hash for node in reader.nodes}
    stored = store.order()
    if not places.issuperset(stored):
        raise DataError("the repository changed while it was read", "run it again")
    for record, commit in zip(store.records(), read(reader, stored, settings, caps=caps), strict=True):
        if record.commit_hash != commit.hash:
            raise DataError("the repository changed while it was read", "run it again")
        yield replace(record, patches=commit.patches, redacted=commit.redacted)
