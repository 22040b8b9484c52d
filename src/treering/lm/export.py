"""A trained model's folder: whole or not there. ``AutoModelForCausalLM.from_pretrained`` loads it. And its exports."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from treering.errors import ModelError, StoreError, UsageError
from treering.files import flush, os_errors, read_json, replacing, swap, write_json
from treering.lm.gguf import QUANTIZATIONS, modelfile, write_gguf

REPORT = "training_report.json"
ADAPTER = "adapter"
"""The folder of a model that holds its low-rank adapter alone, where it was trained so."""
EXPORT = "treering_export.json"
"""Names the files of an export. A folder with other files in it is not replaced."""
FORMATS = ("gguf", "safetensors", "adapter")


@contextmanager
def tensors_written(path: Path) -> Iterator[None]:
    """Name the file and the way out when tensors cannot be written: safetensors tells what the system said in words."""
    from safetensors import SafetensorError

    with os_errors(path):
        try:
            yield
        except SafetensorError as error:
            raise OSError(errno.ENOSPC if "space" in str(error) else errno.EIO, str(error)) from error


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends it takes the place of ``folder``, which until then is untouched. Killed at
    any moment, the old one or the new one is there; where it was killed between the two names, the old one is beside it
    as ``.<name>.old``, and the next time puts it back before anything else.
    """
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    with os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
    try:
        yield new
        with os_errors(folder):
            for path in new.rglob("*"):
                if path.is_file():
                    flush(path)
        swap(new, folder, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_model(folder: Path, model: Any, eos_id: int, report: object, *, weights_format: str = "safetensors") -> None:
    """Weights as safetensors (``bin`` adds ``pytorch_model.bin`` for tools that want it), config and report."""
    model.config.eos_token_id = model.generation_config.eos_token_id = eos_id
    model.config.bos_token_id = model.generation_config.bos_token_id = eos_id
    model.generation_config.pad_token_id = eos_id
    with tensors_written(folder):
        model.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # made private, whatever the user's umask says
        weights.chmod((folder / "config.json").stat().st_mode)
    if weights_format == "bin":
        import torch

        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    write_json(folder / REPORT, report)


SUMS = "SHA256SUMS"
"""What each file of a model's folder held when it was made, as ``sha256sum --check`` reads it."""


def sum_up(folder: Path) -> None:
    """Write down what every file of a folder holds."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    with replacing(folder / SUMS) as sums:
        for path in files:
            sums.write(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n".encode())


def differing(folder: Path) -> list[str] | None:
    """The files of a folder that are not what was written down, with what is wrong; None where nothing was."""
    if not (folder / SUMS).is_file():
        return None
    found = []
    for line in (folder / SUMS).read_text("utf-8", "replace").splitlines():
        wanted, _, name = line.partition("  ")
        path = folder / name
        if not name or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            found.append(f"{name or SUMS} is missing")
        elif _sha256(path) != wanted:
            found.append(f"{name} is not what it was")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Told(Struct, frozen=True):
    """What an export reads of ``training_report.json``."""

    repo: str = ""
    strategy: str = ""
    base_model: str = ""
    verdict: str = ""


class Exported(Struct, frozen=True):
    """``treering_export.json``: what was exported, from which model, and its files with their sizes in bytes."""

    format: str
    quantize: str | None
    model: str
    repo: str
    base_model: str
    verdict: str
    files: dict[str, int]


def told_of(model: Path) -> Told:
    """What the report of a model says of it; nothing, of a folder that was not trained here."""
    return read_json(model / REPORT, Told) if (model / REPORT).is_file() else Told()


def export_model(model: Path, output: Path, as_format: str, quantize: str | None = None) -> Exported:
    """Write the model of a folder to the folder ``output``, for other programs: whole, or what was there is untouched.

    Raises :class:`StoreError` if ``output`` is there and not an earlier export.
    """
    if as_format == "gguf":
        quantize = quantize or QUANTIZATIONS[0]
        if quantize not in QUANTIZATIONS:
            raise UsageError(f"there is no quantization {quantize!r}", f"give --quantize: {', '.join(QUANTIZATIONS)}")
    elif quantize:
        raise UsageError("--quantize is for --format gguf", "leave it out")
    output = output.expanduser().resolve()
    _refuse_others(output)
    told = told_of(model)
    with replacing_folder(output) as new:
        if as_format == "gguf":
            name = f"{told.repo}-git-model" if told.repo else model.name
            written = write_gguf(model, new / "model.gguf", quantize or "", name)
            (new / "Modelfile").write_text(modelfile(written), "utf-8")
        else:
            _copy(model, new, as_format)
        files = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
        exported = Exported(as_format, quantize, model.name, told.repo, told.base_model, told.verdict, files)
        write_json(new / EXPORT, exported)
    return exported


def _copy(model: Path, new: Path, as_format: str) -> None:
    source = model / ADAPTER if as_format == "adapter" else model
    if as_format == "adapter" and not (source / "adapter_config.json").is_file():
        raise ModelError(
            f"the model {model.name} has no adapter: only a training with low-rank adapters keeps one",
            "run `treering train --method lora`, or export --format safetensors",
        )
    for path in sorted((*source.glob("*.safetensors"), *source.glob("*.json"))):
        shutil.copyfile(path, new / path.name)


def _refuse_others(output: Path) -> None:
    """Only what is not there, is empty, or holds nothing but an earlier export may be replaced."""
    if not output.exists():
        return
    known: set[str] = set()
    if (output / EXPORT).is_file():
        known = {EXPORT, *read_json(output / EXPORT, Exported).files}
    if not output.is_dir() or (others := {path.name for path in output.iterdir()} - known):
        what = f"holds {sorted(others)[0]}, which is not of an earlier export" if output.is_dir() else "is a file"
        raise StoreError(f"{output} {what}", "choose another folder, or take it away yourself")
