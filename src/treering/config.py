"""Settings: ``treering.toml`` in the repository, then ``TREERING_*`` in the environment, then flags; the later wins.

Where the store lies is no setting of the file: a repository must not choose where on the machine we write.
"""

import difflib
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from treering.errors import UsageError

FILE_NAME = "treering.toml"
KEYS = {
    "ANTHROPIC_API_KEY": "`ask`, `brief` and `route` through Claude",
    "QDRANT_API_KEY": "a Qdrant server that asks for one",
    "HF_TOKEN": "models of Hugging Face that are not public",
    "TREERING_SERVE_TOKEN": "a server that others may reach",
    "TREERING_SERVE_TOKENS": "a server whose tokens see some repositories each",
    "TREERING_FORGE_TOKEN": "a forge, comments on it and its private repositories",
    "TREERING_FORGE_SECRETS": "webhooks of a forge",
    "GITHUB_TOKEN": "GitHub",
    "GITLAB_TOKEN": "GitLab",
}
"""Names in the environment that hold secrets, and what each is for."""
PLACES = frozenset({"TREERING_STORE"})
"""Environment names that say where things are; they have no key in the file."""
NOT_OF_THE_FILE = frozenset(
    {
        *(("vectors", f"qdrant_{key}") for key in ("url", "tenant", "quantization", "on_disk", "shards", "replicas")),
        ("assist", "claude_model"),
        ("assist", "claude_url"),
        ("assist", "answer_tokens"),
        ("budget", "per_day"),
        ("budget", "per_month"),
        ("budget", "prices"),
        *(("gate", key) for key in ("readable", "memory_mb", "disk_mb", "processes", "patch_bytes", "log_bytes")),
        ("learn", "minutes"),
        ("learn", "on_battery"),
        ("watch", "nice"),
        ("monitor", "log"),
        ("monitor", "log_bytes"),
        ("monitor", "false_alarms"),
        ("monitor", "webhook"),
        ("monitor", "command"),
        *(
            ("serve", key)
            for key in (
                "host",
                "port",
                "token",
                "tokens",
                "names",
                "threads",
                "processes",
                "waiting",
                "body_bytes",
                "rate",
                "seconds",
            )
        ),
        *(
            ("forge", key)
            for key in (
                "repository",
                "kind",
                "api",
                "token",
                "repositories",
                "secrets",
                "webhook_bytes",
                "replay_seconds",
                "comments",
                "patience",
            )
        ),
    }
)
"""Settings that a repository must not choose: it would be told our key and be sent texts, or write over another one's
vectors; it would open a door of the machine, run a program on it, write where it likes, take more time, power or room
of it, keep an alarm from us, let its tests read and take what they like, or say where on a forge we write. A server has
several repositories anyway.
"""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""The machine's own names: what is sent there needs no encryption."""

Positive = Annotated[int, Meta(ge=1)]
Strategy = Literal["semantic", "hierarchical", "diff-aware", "flat"]
Markers = Literal["text", "tokens"]
Method = Literal["lora", "full", "qlora"]
Refs = Literal["branches", "all"]
BackEnd = Literal["flat", "qdrant", "edge"]
Quantization = Literal["none", "scalar"]
ForgeKind = Literal["", "github", "gitlab"]


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    workers: Annotated[int, Meta(ge=1, le=64)] = min(os.cpu_count() or 1, 8)
    """How many git processes make diffs at once."""
    patch_file_bytes: Positive = 4096
    """How many bytes of one file's hunks are kept where hunks are read."""
    patch_commit_bytes: Positive = 32768
    """How many bytes of one commit's hunks are kept."""
    commit_seconds: Annotated[float, Meta(gt=0, le=1e6)] = 120.0
    """How long git may be silent about a commit before it is told by its trees alone."""
    refs: Refs = "branches"
    """What is read: local and remote branches, or `all` refs (tags, pull requests, notes, stash)."""
    branches: tuple[str, ...] = ()
    """Only what these branches reach; a pattern may hold `*`."""
    since: str = ""
    """Only commits of that committer date or later: `2024-01-31`, with a time, or `3 months ago`."""
    until: str = ""
    """Only commits of that committer date or earlier."""
    paths: tuple[str, ...] = ()
    """Only commits that change one of these paths, as git's pathspecs."""
    author: str = ""
    """Only commits whose author's name or address holds this, in any case."""
    merges: bool = True
    """Whether merges are read."""
    max_commits: Annotated[int, Meta(ge=0)] = 0
    """Only so many of the newest that are left; 0 is all."""
    mailmap: bool = False
    """Whether authors are unified by the repository's `.mailmap`."""
    allow_secrets: tuple[str, ...] = ()
    """Values that look like secrets and are none; a pattern may hold `*`."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    model: str = "all-MiniLM-L6-v2"
    """The embedding model: the built-in one, or any sentence-transformers name or folder (extra `st`)."""
    batch_tokens: Annotated[int, Meta(ge=256)] = 1024
    """How many tokens, padding included, are embedded at once; memory grows with it."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    limit: Annotated[int, Meta(ge=1, le=1000)] = 10
    """How many results a search gives."""
    dense_weight: Annotated[float, Meta(ge=0, le=10)] = 1.0
    """The weight of the dense leg's z-score beside the lexical legs' 1."""


@dataclass(frozen=True, slots=True)
class VectorSettings:
    backend: BackEnd = "flat"
    """Who answers by meaning: the store's own matrix, a Qdrant server, or Qdrant's engine in this process."""
    qdrant_url: str = "http://localhost:6333"
    """Where the server is. Never taken from the repository's file: it gets a key and the repository's texts."""
    qdrant_collection: str = ""
    """The collection's name; empty is the repository's with `-commits`."""
    qdrant_timeout: Annotated[int, Meta(ge=1, le=3600)] = 10
    """How many seconds the server may take for an answer."""
    qdrant_tenant: str = ""
    """By what name the repository's points are told from others' in a collection of several; empty is one of its own.
    Never taken from the repository's file: it says whose points are written over."""
    qdrant_quantization: Quantization = "none"
    """Whether a collection that is made keeps its vectors in one byte a dimension, too (`scalar`), to search by."""
    qdrant_on_disk: bool = False
    """Whether it reads the vectors themselves from the disk."""
    qdrant_shards: Annotated[int, Meta(ge=0, le=1024)] = 0
    """In how many shards it is; 0 leaves that to the server."""
    qdrant_replicas: Annotated[int, Meta(ge=0, le=64)] = 0
    """On how many servers of a cluster each shard is; 0 leaves that to the server."""


@dataclass(frozen=True, slots=True)
class TokensSettings:
    strategy: Strategy = "semantic"
    """How a commit is told to the model."""
    markers: Markers = "text"
    """Whether `<COMMIT>` and its like are plain text or tokens added to the vocabulary."""
    sequence_length: Annotated[int, Meta(ge=8, le=32768)] = 256
    """How many tokens a training block has."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    model: str = "smollm2-135m"
    """The base model: `smollm2-135m`, `scratch`, or any Hugging Face name or folder."""
    method: Method = "lora"
    """Low-rank adapters merged at the end, all weights, or adapters over a base in 4 bits (extra `qlora`)."""
    minutes: Annotated[float, Meta(ge=0, le=1e6)] = 5.0
    """The wall-time budget of training; 0 trains nothing."""
    epochs: Positive = 3
    """How often the training text is read at most."""
    batch_size: Positive = 1
    """How many sequences make one optimizer step; fewer are computed at once where memory is short."""
    max_steps: Annotated[int, Meta(ge=0)] = 0
    """After how many optimizer steps training ends at the latest; 0 is no limit."""
    max_tokens: Annotated[int, Meta(ge=0)] = 0
    """How many tokens are learned from at most; 0 is no limit."""
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 1e-3
    """The peak learning rate."""
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 7
    """Decides the order of batches and every random start."""
    gpu: bool = True
    """Whether a GPU is used where there is one."""
    save_seconds: Annotated[float, Meta(ge=0, le=1e6)] = 60.0
    """How much of a training a kill may cost: a checkpoint is written so often; 0 is after each step."""
    sharded: bool = False
    """Whether the model is spread over the processes that `torchrun` started (FSDP), not whole in each (DDP)."""
    keep_models: Positive = 3
    """How many of the newest models are kept beside the current one."""


@dataclass(frozen=True, slots=True)
class LearnSettings:
    after: Positive = 32
    """How many new commits `treering learn` waits for."""
    minutes: Annotated[float, Meta(gt=0, le=1e6)] = 5.0
    """The wall-time budget of its training."""
    keep: Annotated[int, Meta(ge=0)] = 2
    """How many of the models that were current before are kept to go back to."""
    on_battery: bool = False
    """Whether it goes on while the machine runs on its battery."""
    battery_minutes: Annotated[float, Meta(ge=0, le=1e6)] = 120.0
    """How long it waits for power, all waits together, before it ends with a checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Of the looks at series that do not change, at most this part may say that one got worse."""
    log: str = ""
    """A file that gets a line of JSON for every run. Never taken from the repository's file: it says where we write."""
    log_bytes: Annotated[int, Meta(ge=1024)] = 10_000_000
    """How large that file may become; then it is renamed, with `.1` behind, and begun anew."""
    webhook: str = ""
    """Where an alert is posted. Never taken from the repository's file: it says who is told."""
    command: str = ""
    """A program that gets an alert on stdin, with its arguments. Never taken from the repository's file: it is run."""
    seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    """How long an alert may take to be delivered, each try of three."""


@dataclass(frozen=True, slots=True)
class AssistSettings:
    claude_model: str = "claude-sonnet-5-5"
    """The model of Claude that is asked. Never taken from the repository's file: it decides the price."""
    claude_url: str = "https://api.anthropic.com"
    """Where it is asked. Never taken from the repository's file: it gets a key and the repository's texts."""
    claude_seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    """How many seconds Claude may be silent."""
    claude_retries: Annotated[int, Meta(ge=0, le=10)] = 2
    """How often a question that was surely not answered is asked again."""
    answer_tokens: Annotated[int, Meta(ge=16, le=32000)] = 4096
    """How long an answer may be, thinking included. Never taken from the repository's file: it decides the price."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    per_day: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    """How many dollars may be spent in a day (UTC), reservations included; 0 spends nothing."""
    per_month: Annotated[float, Meta(ge=0, le=1e6)] = 10.0
    """How many in a month (UTC)."""
    prices: str = ""
    """A file of prices that takes the place of the one that comes with treering."""


@dataclass(frozen=True, slots=True)
class RouteSettings:
    private_paths: tuple[str, ...] = ()
    """Files that never go to Claude: names, paths and folders, which may hold `*`."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    command: str = ""
    """What runs the tests, in words parted as a shell parts them; no shell runs it."""
    protected: tuple[str, ...] = ()
    """What a patch may not touch: names, paths and folders, which may hold `*`."""
    seconds: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    """How long the tests may take."""
    identity: str = "treering gate <gate@localhost>"
    """Author and committer of what passed."""
    readable: tuple[str, ...] = ()
    """What more of the machine tests may read. Never taken from the repository's file."""
    memory_mb: Annotated[int, Meta(ge=16, le=1 << 20)] = 2048
    """How much memory the tests may use, all processes together."""
    disk_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 1024
    """How large the repository's files may become, and as much the temporary ones; both are kept in memory."""
    processes: Annotated[int, Meta(ge=8, le=100_000)] = 1024
    """How many threads the tests may have, all processes together."""
    patch_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 8 << 20
    """How large a patch may be."""
    log_bytes: Annotated[int, Meta(ge=1024, le=1 << 26)] = 1 << 16
    """How much of what tests say is kept: the beginning and the end."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    host: str = "127.0.0.1"
    """The address that is listened at. Any but the machine's own demands a token."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """The port; 0 is any free one."""
    token: str = ""
    """Who asks must bear it (`Authorization: Bearer …`). By environment only: a command line can be read by others."""
    tokens: str = ""
    """More tokens, each with the names of the repositories that it sees: `TOKEN=name,other-*;TOKEN=*`. By environment
    only."""
    names: tuple[str, ...] = ()
    """Names under which the server is asked beside its address: what a proxy sends as `Host`."""
    threads: Annotated[int, Meta(ge=0, le=64)] = 0
    """How many questions are answered at once; 0 is the number of cores."""
    processes: Annotated[int, Meta(ge=0, le=64)] = 0
    """How many processes answer quick questions in the place of those threads, each with an index open of its own."""
    waiting: Annotated[int, Meta(ge=1, le=100_000)] = 256
    """How many questions wait at most; one more is told to come back."""
    body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 1 << 20
    """How large a request may be."""
    rate: Annotated[float, Meta(ge=0, le=1e6)] = 200.0
    """How many requests a second one client may make, over a while; 0 is no limit."""
    seconds: Annotated[float, Meta(gt=0, le=86_400)] = 120.0
    """How long an answer may take to begin."""


@dataclass(frozen=True, slots=True)
class ForgeSettings:
    repository: str = ""
    """The repository's full name at its forge (`owner/name`); empty is CI's, or that of the remote `origin`."""
    kind: ForgeKind = ""
    """Which forge it is; empty is told by `api`, by CI, or by the remote's host."""
    api: str = ""
    """Where the forge's API is; empty is CI's, or the public one of github.com or gitlab.com."""
    token: str = ""
    """The key to the forge. By environment only; `GITHUB_TOKEN` or `GITLAB_TOKEN` is where it is not, and comes first
    where neither `kind` nor `api` says whose it is."""
    repositories: tuple[str, ...] = ()
    """Whose webhooks are taken, and where each is fetched from: `owner/name=https://…/name.git`."""
    secrets: tuple[str, ...] = ()
    """What webhooks are signed with; several while one takes the place of another. By environment only."""
    webhook_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 25 << 20
    """How large a delivery may be."""
    replay_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    """How far the time that a delivery is signed with may be from ours."""
    comments: bool = False
    """Whether a delivery of a pull or merge request has it commented on."""
    patience: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """How many seconds in all are waited for a forge that asks to wait."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    look_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    """How often the watcher looks whether refs have moved that no hook told of."""
    quiet_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0.3
    """For so long nothing may have moved before the index is brought up to date."""
    burst_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 5.0
    """After so long it is, though refs go on moving."""
    retry_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    """How rarely at most what fails is tried again; the first time after two seconds, then twice as long each time."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 19
    """The priority of index runs, as `nice` counts: 19 is the lowest, and waits for all else the machine has to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    scrape: ScrapeSettings = field(default_factory=ScrapeSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    vectors: VectorSettings = field(default_factory=VectorSettings)
    tokens: TokensSettings = field(default_factory=TokensSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    assist: AssistSettings = field(default_factory=AssistSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    route: RouteSettings = field(default_factory=RouteSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    forge: ForgeSettings = field(default_factory=ForgeSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)


SECTIONS: dict[str, Any] = {section.name: section.default_factory for section in fields(Settings)}


def load(
    folder: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, Mapping[str, object]] | None = None,
    *,
    heeding: Collection[str] = frozenset(SECTIONS),
) -> Settings:
    """The settings that hold for a repository at ``folder``. ``flags`` that are None were not given. Of the file only
    some sections may be taken, ``heeding`` these.

    Raises :class:`UsageError` naming the file or variable, the key and what is wrong with it.
    """
    chosen: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    if folder is not None and (path := folder / FILE_NAME).is_file():
        _take(chosen, _read(path), str(path))
        for section, key in NOT_OF_THE_FILE:
            if key in chosen[section]:
                raise UsageError(
                    f"{path}: `{key}` in [{section}] is not the repository's to set",
                    f"set TREERING_{section.upper()}_{key.upper()}, or give the flag",
                )
    for section in SECTIONS.keys() - set(heeding):
        chosen[section].clear()
    for name, section, key, value in _of_environment(environment):
        _take(chosen, {section: {key: value}}, f"the environment variable {name}")
    given = {
        section: {key: value for key, value in values.items() if value is not None and value != ()}
        for section, values in (flags or {}).items()
    }
    _take(chosen, given, "the flags")
    try:
        return msgspec.convert(chosen, Settings, strict=False)
    except msgspec.ValidationError as error:  # each source was checked on its own: this is a bug, said as such
        raise UsageError(f"the settings do not fit together: {error}") from error


def without_keys(environment: Mapping[str, str], *, but: Collection[str] = ()) -> dict[str, str]:
    """An environment for another process, with no secret but those that it needs."""
    return {name: value for name, value in environment.items() if name in but or name.upper() not in KEYS}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}", "docs/configuration.md shows one") from error


def _of_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str, object]]:
    """Variable, section, key, value: ``TREERING_TRAIN_MINUTES=3`` is ``minutes = 3`` in ``[train]``. Lists are parted
    by commas.
    """
    for name, value in environment.items():
        if name.startswith("TREERING_") and name not in PLACES:
            section, _, key = name.removeprefix("TREERING_").lower().partition("_")
            if section not in SECTIONS or not key:
                _unknown(name, "the environment", [f"TREERING_{known.upper()}_…" for known in SECTIONS])
            listed = isinstance(getattr(SECTIONS[section](), key, None), tuple)
            yield name, section, key, [one.strip() for one in value.split(",") if one.strip()] if listed else value


def _take(chosen: dict[str, dict[str, object]], values: Mapping[str, Any], where: str) -> None:
    for section, settings in values.items():
        if section not in SECTIONS:
            _unknown(f"[{section}]", where, [f"[{known}]" for known in SECTIONS])
        if not isinstance(settings, Mapping):
            raise UsageError(f"{where}: `{section}` must be a table", f"write [{section}]")
        kind = SECTIONS[section]
        known = [setting.name for setting in fields(kind)]
        for key, value in settings.items():
            if key not in known:
                _unknown(f"`{key}` in [{section}]", where, [f"`{name}`" for name in known])
            try:
                msgspec.convert({key: value}, kind, strict=False)
            except msgspec.ValidationError as error:
                problem = str(error).partition(" - at")[0]
                named = get_args(get_type_hints(kind)[key])
                hint = (
                    f"one of: {', '.join(map(str, named))}"
                    if named and all(isinstance(one, str) for one in named)
                    else ""
                )
                raise UsageError(
                    f"{where}: `{key}` in [{section}] is {value!r}: {problem}",
                    hint or "docs/configuration.md tells what it may be",
                ) from error
            chosen[section][key] = value


def _unknown(name: str, where: str, known: list[str]) -> None:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    raise UsageError(f"{where}: unknown {name}", f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
