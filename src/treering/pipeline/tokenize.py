"""records → token streams."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from msgspec.structs import replace

from treering.config import Settings
from treering.errors import DataError
from treering.git.reader import Caps, Reader, Source, open_reader
from treering.lm.base import SCRATCH
from treering.pipeline.common import caps_of, fingerprint_of, keep_newest, read, write_manifest
from treering.report import Reporter
from treering.store import Store
from treering.text import secrets, strategies
from treering.text.kinds import NOISE
from treering.text.strategies import MARKERS, NEEDS_PATCHES, Duplicates, documents
from treering.tokens.pack import read_stream, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer, tokenized
from treering.types import Corpus, Record, TokenDocument


def token_documents(
    records: Iterable[Record], strategy: str, tokenizer: TextTokenizer, duplicates: Duplicates
) -> Iterator[tuple[Record, TokenDocument]]:
    """Records told by a strategy and encoded, in order; repeated ones say whom they repeat."""
    told = ((record, told, duplicates.of(record)) for record, told in documents(records, strategy))
    return tokenized(told, tokenizer)


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
    if (folder / "header.json").is_file() and (folder / "tokens.bin").is_file():
        return folder, read_stream(folder)[0]
    duplicates = Duplicates()
    noise: Counter[str] = Counter()
    with store.writing("treering tokenize"), told_records(store, source, settings, caps) as told:
        records = _without_noise(told, store.paths(), noise)
        tracked = report.track(records, store.count(), "tokenising")
        corpus = write_stream(
            folder,
            (encoded for _, encoded in token_documents(tracked, strategy, tokenizer, duplicates)),
            tokenizer=tokenizer, repo=store.fact("repo") or "", strategy=strategy, length=length,
        )  # fmt: skip
        tokenizer.save(folder)
        keep_newest(folder.parent, {folder.name})
        store.log_run(
            "tokenize",
            started,
            {
                "tokens": corpus.total_tokens,
                "documents": len(corpus.documents),
                "left_out": {f"hunks of {kind}": count for kind, count in noise.items()},
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


def _without_noise(records: Iterable[Record], kinds: Mapping[str, str], left_out: Counter[str]) -> Iterator[Record]:
    """The records without the hunks of noise, which are counted in ``left_out`` by kind."""
    for record in records:
        noise = [patch for patch in record.patches if kinds.get(patch.path) in NOISE]
        left_out.update(kinds[patch.path] for patch in noise)
        yield replace(record, patches=tuple(one for one in record.patches if one not in noise)) if noise else record
