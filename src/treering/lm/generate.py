"""Sampling from a trained model's folder, told piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from treering.errors import ModelError, UsageError, needs
from treering.lm.base import load_model
from treering.types import Generated, Sampling

Tell = Callable[[str], None]
TURN = "\n\nUser:"
"""Where the other one speaks again in :func:`laid_out`."""
HOLDER = "\ue000"
"""Stands around the place of a message in a chat template, until the template is encoded."""
UNFINISHED = "\ufffd"
"""What the first bytes of a character decode to until the others come."""


class Writer:
    """A model with its tokenizer, loaded once, that goes on from prompts. One thread uses it at a time."""

    def __init__(self, folder: Path, *, gpu: bool = False) -> None:
        with needs("train"):
            import torch
            from transformers import AutoTokenizer

        self.folder = folder
        self.model = load_model(folder)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"the tokenizer in {folder} cannot be loaded: {error}", "train it again") from error
        device = torch.accelerator.current_accelerator() if gpu and torch.accelerator.is_available() else None
        self.device: Any = device or "cpu"
        self.model.to(self.device).eval()
        # No text of a commit holds another control token either: a chat's end, say, of the base model.
        ends = [number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special]
        self.ends = sorted({self.tokenizer.eos_token_id, *ends})

    @property
    def longest(self) -> int | None:
        """How many tokens the model reads, prompt and answer together; None is without end."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def encoded(self, prompt: str) -> list[int]:
        """The ids of a prompt; an empty one begins a document. What merely looks like an end-of-text is text, as it was
        in training.

        Raises :class:`UsageError` for what is no text.
        """
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UsageError("the prompt is no UTF-8 text", "give it in UTF-8") from error
        if not prompt:
            return [self.tokenizer.eos_token_id]
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def chat(self, messages: Sequence[tuple[str, str]]) -> tuple[list[int], tuple[str, ...]]:
        """The ids of a conversation (role, text) up to where the next answer begins, and the texts that end it: by the
        template that came with the model, or else in :func:`laid_out`. No text of a message becomes a control token.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            return self.encoded(laid_out(messages)), (TURN,)
        marked = [{"role": role, "content": f"{HOLDER}{number}{HOLDER}"} for number, (role, _) in enumerate(messages)]
        try:
            told = self.tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            raise UsageError(
                f"the model's chat template refuses this conversation: {error}", "change its roles"
            ) from error
        ids: list[int] = []
        for place, part in enumerate(str(told).split(HOLDER)):
            if place % 2:
                ids += self.encoded(messages[int(part)][1]) if messages[int(part)][1] else []
            elif part:
                ids += self.tokenizer(part, add_special_tokens=False)["input_ids"]
        return ids, ()

    def write(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling,
        *,
        tell: Tell = lambda _: None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Generated:
        """Go on from a prompt, or from its ids. ``tell`` gets every piece as it is made; once the answer is
        ``unwanted``, it ends with the token under way. The same seed gives the same text on the same machine.

        Raises :class:`UsageError` for a prompt that is no text or longer than the model reads.
        """
        import torch
        from transformers import StoppingCriteriaList

        ids = self.encoded(prompt) if isinstance(prompt, str) else list(prompt)
        max_tokens = sampling.max_tokens
        if self.longest is not None:
            if len(ids) >= self.longest:
                raise UsageError(f"the prompt has {len(ids)} tokens and the model reads {self.longest}", "shorten it")
            max_tokens = min(max_tokens, self.longest - len(ids))
        inputs = torch.tensor([ids], device=self.device)
        told = _Told(self.tokenizer, len(ids), self.ends, sampling.stop, tell, unwanted)
        torch.manual_seed(sampling.seed)
        self.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=max_tokens,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=self.ends,
            pad_token_id=self.tokenizer.eos_token_id,
            stopping_criteria=StoppingCriteriaList([told]),
            **_choice(sampling),
        )
        return told.whole(sampling.seed, prompt_tokens=len(ids))


def laid_out(messages: Sequence[tuple[str, str]]) -> str:
    """A conversation for a model that learned none: what the system says, then the turns, each with its speaker."""
    names = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
    turns = [f"{names[role]}: {text}" if role in names else text for role, text in messages]
    return "\n\n".join((*turns, "Assistant:"))


def generate(
    folder: Path, prompt: str, sampling: Sampling, *, count: int = 1, gpu: bool = False, tell: Tell = lambda _: None
) -> Iterator[Generated]:
    """Let a model go on from a prompt, ``count`` times; the first with the seed, each other with the next one.
    ``tell`` gets the prompt, too.
    """
    writer = Writer(folder, gpu=gpu)
    for seed in range(sampling.seed, sampling.seed + count):
        tell(prompt)
        yield writer.write(prompt, replace(sampling, seed=seed), tell=tell)


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

    def __init__(
        self,
        tokenizer: Any,
        asked: int,
        ends: Sequence[int],
        stops: Sequence[str],
        tell: Tell,
        unwanted: Callable[[], bool],
    ) -> None:
        self._tokenizer, self._asked, self._ends, self._stops, self._tell = tokenizer, asked, ends, stops, tell
        self._unwanted = unwanted
        self._ids: list[int] = []
        self._text = ""
        self._ended_by: Literal["", "end", "stop", "left"] = ""

    def __call__(self, ids: Any, *_: Any, **__: Any) -> Any:
        import torch

        if not self._ended_by:  # on some devices transformers asks once more after the answer
            self._ids = ids[0, self._asked :].tolist()
            decoded = self._decoded()
            until, stopped = tellable(decoded, self._stops)
            self._go_on(decoded[:until])
            self._ended_by = "stop" if stopped else "end" if self._ids[-1] in self._ends else ""
            if not self._ended_by and self._unwanted():
                self._ended_by = "left"
        return torch.full((ids.shape[0],), bool(self._ended_by), device=ids.device)

    def whole(self, seed: int, prompt_tokens: int) -> Generated:
        """Tell what was still held back; then everything that was told."""
        if self._ended_by != "stop":
            self._go_on(self._decoded())
        return Generated(self._text, len(self._ids), seed, self._ended_by or "length", prompt_tokens)

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
