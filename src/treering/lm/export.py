"""A trained model's folder: whole or not there. ``AutoModelForCausalLM.from_pretrained`` loads it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treering.files import os_errors, write_json

REPORT = "training_report.json"


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends it takes the place of ``folder``, which until then is untouched."""
    with os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = folder.with_name(f".{folder.name}.new")
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            yield new
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def write_model(folder: Path, model: Any, eos_id: int, report: object, *, weights_format: str = "safetensors") -> None:
    """Weights as safetensors (``bin`` adds ``pytorch_model.bin`` for tools that want it), config and report."""
    model.config.eos_token_id = model.generation_config.eos_token_id = eos_id
    model.config.bos_token_id = model.generation_config.bos_token_id = eos_id
    model.generation_config.pad_token_id = eos_id
    model.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # made private, whatever the user's umask says
        weights.chmod((folder / "config.json").stat().st_mode)
    if weights_format == "bin":
        import torch

        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    write_json(folder / REPORT, report)
