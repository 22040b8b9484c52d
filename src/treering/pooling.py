"""The operation that learns from a fleet: one model of many repositories, judged on the newest of all, and on some that
it never saw.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
from msgspec import Struct

from treering.config import load
from treering.errors import DataError, NoStore, StoreError, UsageError
from treering.files import locked, write_json
from treering.lm import processes
from treering.lm.base import check_base
from treering.lm.evaluate import HoldOut
from treering.lm.export import REPORT
from treering.pipeline import learn as learn_stage
from treering.pipeline.common import fingerprint_of
from treering.pipeline.mixture import MOST, Shard, Share, mixed, said_of
from treering.pipeline.tokenize import CARD
from treering.report import Reporter
from treering.store import Store
from treering.store.fleet import Fleet, store_of
from treering.tokens.pack import read_stream

INDEX = "tokens.json"
"""The file that names what a mixture is made of, beside the model."""

Flags = Mapping[str, Mapping[str, object]]


class Pooled(Struct, frozen=True):
    """A model of a fleet: its folder, what it was made of, its report, and what it is worth on repositories that it
    learned nothing from. ``left_out`` says why a repository is in no part.
    """

    folder: str
    shares: tuple[Share, ...]
    apart: tuple[Share, ...]
    left_out: dict[str, str]
    report: learn_stage.TrainingReport
    elsewhere: HoldOut | None


def train(
    fleet: Path,
    report: Reporter,
    *,
    flags: Flags | None = None,
    weights: Mapping[str, float] | None = None,
    apart: Sequence[str] = (),
    resume: bool = True,
) -> Pooled | None:
    """Fine-tune the base model on the token streams of a fleet, and judge it on the newest commits of all of it; and on
    the repositories named ``apart``, which nothing is learned from. ``weights`` say how often the documents of some
    come, 1 being once.

    None in a process that ``torchrun`` started beside the first one. Raises :class:`DataError` for streams that do not
    fit together.
    """
    settings, weights = load(None, os.environ, flags), weights or {}
    if settings.train.minutes == 0:
        raise UsageError("a budget of 0 minutes trains nothing", "give --minutes a positive number")
    if wrong := [name for name, weight in weights.items() if not 0 < weight <= MOST]:
        raise UsageError(f"the weight of {wrong[0]} is none", f"give more than 0 and at most {MOST}")
    check_base(settings.train.model)
    shards, left_out = _shards(fleet, weights)
    if unknown := {*weights, *apart} - {*(shard.name for shard in shards), *left_out}:
        raise UsageError(f"the fleet has no {min(unknown)}", "see `treering fleet status`")
    for name, why in left_out.items():
        report.warn(f"{name} is left out: {why}")
    learned_from = [shard for shard in shards if shard.name not in apart]
    if not learned_from:
        raise DataError(f"no repository of {fleet} has tokens to learn from", "run `treering fleet update --tokens`")
    corpus, ids, shares = mixed(learned_from, fleet.absolute().name, settings.train.seed)
    recipe, base = learn_stage.recipe_of(settings), settings.train.model
    folder = fleet.absolute() / "models" / fingerprint_of(learn_stage.FINGERPRINT, corpus.sha256, base, asdict(recipe))
    made = processes.shared("mixture", lambda: "made" if resume and (folder / REPORT).is_file() else "to be made")
    if processes.rank():
        if made == "to be made":
            learn_stage.learn_beside(corpus, ids, base, recipe, folder, resume=resume)
        return None
    others = [shard for shard in shards if shard.name in apart]
    with locked(fleet / "trainer.lock", "treering fleet train"):
        before = msgspec.json.decode((folder / INDEX).read_bytes(), type=Pooled) if (folder / INDEX).is_file() else None
        if made == "made":
            report.say("nothing new to learn: this mixture was learned with these settings before")
            told = learn_stage.report_of(folder)
            if before and [(one.name, one.sha256) for one in before.apart] == [
                (shard.name, shard.corpus.sha256) for shard in others
            ]:
                return before
        else:
            told = learn_stage.learn(
                corpus, ids, base, recipe, folder, report, resume=resume, save_seconds=settings.train.save_seconds
            )
        elsewhere, rest = None, list[Share]()
        if others:
            taught = [one for shard in learned_from for name, said in shard.said.items() for one in said.names(name)]
            there, tokens, rest = mixed(others, fleet.absolute().name, settings.train.seed, told=taught)
            report.say(f"judging the model on {len(others)} repositories that it never saw")
            try:
                elsewhere = learn_stage.judged_elsewhere(there, tokens, base, recipe, folder)
            except DataError as error:  # the model is made, and all else is known of it
                report.warn(f"not judged on {', '.join(apart)}: {error.message}")
        pooled = Pooled(str(folder), tuple(shares), tuple(rest), left_out, told, elsewhere)
        write_json(folder / INDEX, pooled)
    return pooled


def _shards(fleet: Path, weights: Mapping[str, float]) -> tuple[list[Shard], dict[str, str]]:
    """The token stream of each repository that has one, and why the others have none."""
    if not (fleet / Fleet.file).is_file():
        raise NoStore(f"there is no fleet in {fleet}", "run `treering fleet update` first")
    with Fleet(fleet, reading=True) as register:
        names = register.names()
    shards, left_out = list[Shard](), dict[str, str]()
    for name in names:
        folder = store_of(fleet, name)
        streams = sorted((folder / "tokens").glob(f"*/{CARD}"), key=lambda card: card.stat().st_mtime)
        if not streams:
            left_out[name] = "it has no token stream: run `treering fleet update --tokens`"
            continue
        try:
            corpus, ids = read_stream(streams[-1].parent)
            with Store.existing(folder) as store:
                commits = store.indexed_commits()
                said = {one.hash: said_of(one.patch_id, store.hunks(one.id)) for one in commits}
        except (DataError, StoreError) as error:
            left_out[name] = f"{error.message} ({error.hint})"
            continue
        shards.append(Shard(name, corpus, ids, said, weights.get(name, 1.0)))
    return shards, left_out
