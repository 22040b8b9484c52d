"""Sampling from a trained model's folder, told piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from treering.errors import ModelError, UsageError, needs
from treering.lm.base import load_model
from treering.types import Generated, Sampling

Tell = Callable[[str], None]
UNFINISHED = "\ufffd"
"""What the first bytes of a character decode to until the others come."""


def generate(
    folder: Path, prompt: str, sampling: Sampling, *, count: int = 1, gpu: bool = False, tell: Tell = lambda _: None
) -> Iterator[Generated]:
    """Let the model go on from a prompt, ``count`` times; the first with the seed, each other with the next one.

    ``tell`` gets the prompt and then every piece as it is made. The same seed gives the same text on the same machine.
    Raises :class:`UsageError` for a prompt that is no text or longer than the model reads.
    """
    with needs("train"):
        import torch
        from transformers import AutoTokenizer, StoppingCriteriaList

    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the prompt is no UTF-8 text", "give it in UTF-8") from error
    model = load_model(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {error}", "train it again") from error
    # What merely looks like an end-of-text is text, as it was in training.
    inputs = (
        tokenizer(prompt, return_tensors="pt", add_special_tokens=False, split_special_tokens=True)
        if prompt
        else tokenizer(tokenizer.eos_token, return_tensors="pt", add_special_tokens=False)
    )
    max_tokens = sampling.max_tokens
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None:
        asked = inputs["input_ids"].shape[1]
        if asked >= longest:
            raise UsageError(f"the prompt has {asked} tokens and the model reads {longest}", "shorten it")
        max_tokens = min(max_tokens, longest - asked)
    device = torch.accelerator.current_accelerator() if gpu and torch.accelerator.is_available() else None
    model.to(device or "cpu").eval()
    inputs = inputs.to(device or "cpu")
    # No text of a commit holds another control token either: a chat's end, say, of the base model.
    ends = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
    ends = sorted({tokenizer.eos_token_id, *ends})
    for seed in range(sampling.seed, sampling.seed + count):
        torch.manual_seed(seed)
        tell(prompt)
        told = _Told(tokenizer, inputs["input_ids"].shape[1], ends, sampling.stop, tell)
        model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=ends,
            pad_token_id=tokenizer.eos_token_id,
            stopping_criteria=StoppingCriteriaList([told]),
            **_choice(sampling),
        )
        yield told.whole(seed)


def _choice(sampling: Sampling) -> dict[str, Any]:
    if not sampling.temperature:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
    }


class _Told:
    """Asked by transformers after each token whether to stop: decodes what is there and tells what is new of it."""

    def __init__(self, tokenizer: Any, asked: int, ends: Sequence[int], stops: Sequence[str], tell: Tell) -> None:
        self._tokenizer, self._asked, self._ends, self._stops, self._tell = tokenizer, asked, ends, stops, tell
        self._ids: list[int] = []
        self._text = ""
        self._ended_by: Literal["", "end", "stop"] = ""

    def __call__(self, ids: Any, *_: Any, **__: Any) -> Any:
        import torch

        if not self._ended_by:  # on some devices transformers asks once more after the answer
            self._ids = ids[0, self._asked :].tolist()
            decoded = self._decoded()
            until, stopped = tellable(decoded, self._stops)
            self._go_on(decoded[:until])
            self._ended_by = "stop" if stopped else "end" if self._ids[-1] in self._ends else ""
        return torch.full((ids.shape[0],), bool(self._ended_by), device=ids.device)

    def whole(self, seed: int) -> Generated:
        """Tell what was still held back; then everything that was told."""
        if self._ended_by != "stop":
            self._go_on(self._decoded())
        return Generated(self._text, len(self._ids), seed, self._ended_by or "length")

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def _go_on(self, text: str) -> None:
        if len(text) > len(self._text):
            self._tell(text[len(self._text) :])
            self._text = text


def tellable(text: str, stops: Sequence[str]) -> tuple[int, bool]:
    """How much of a growing text is sure to stay, and whether a stop text ends it there.

    What may be the beginning of a stop text, or of a character, waits for the next token.
    """
    if found := [at for stop in stops if (at := text.find(stop)) >= 0]:
        return min(found), True
    sure = len(text.rstrip(UNFINISHED))
    longest = max((len(stop) for stop in stops), default=0)
    for start in range(max(0, sure - longest + 1), sure):
        if any(stop.startswith(text[start:sure]) for stop in stops):
            return start, False
    return sure, False
