"""A causal language model, open to be asked how likely texts are and how one goes on. Knows nothing of commits."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Chances = npt.NDArray[np.float64]

ROWS = 8
"""How many texts are written side by side."""


class Codec(Protocol):
    """What is asked of a tokenizer."""

    eos_id: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class Scorer:
    """A model with its tokenizer. Of a text longer than ``window`` tokens the end is read."""

    def __init__(self, model: Any, codec: Codec, window: int) -> None:
        self.model = model.eval()
        self.codec = codec
        longest = getattr(model.config, "max_position_embeddings", None) or window
        self.window = min(window, longest)

    def begins(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """The first token of each word, as it stands behind a space; of a line break as it ends a line."""
        ids = self.codec.encode([word if word == "\n" else f" {word}" for word in words])
        return np.array([of[0] for of in ids], np.int64)

    def first_tokens(self, context: str, words: Sequence[str], tokens: npt.NDArray[np.int64]) -> Chances:
        """How likely each of ``tokens`` comes first behind the context and the first 0, 1, … of ``words``: shape
        (words + 1, tokens). One reading of the model.
        """
        import torch

        parts = self.codec.encode([context, *(f" {word}" for word in words)])
        ids = [token for part in parts for token in part]
        ends = np.cumsum([len(part) for part in parts])
        cut = max(0, len(ids) - self.window)
        if ends[0] <= cut:  # the words alone fill the window: nothing can be said of the first of them
            ends = np.maximum(ends, cut + 1)
        with torch.inference_mode():
            logits = self.model(
                input_ids=self._tensor([ids[cut:]]), use_cache=False, logits_to_keep=len(ids) - int(ends[0]) + 1
            ).logits[0]
            chances = logits[ends - ends[0]].float().softmax(dim=-1)[:, torch.from_numpy(tokens).to(self.model.device)]
        return np.asarray(chances.cpu().numpy(), np.float64)

    def chances(self, context: str, texts: Sequence[str]) -> Chances:
        """The natural logarithm of how likely each text comes behind the context, which is read once."""
        import torch
        import torch.nn.functional as functional

        (before, *after) = self.codec.encode([context, *texts])
        longest = max(len(text) for text in after)
        before = (before or [max(self.codec.eos_id, 0)])[-max(1, self.window - longest) :]
        with torch.inference_mode():
            read = self.model(input_ids=self._tensor([before]), use_cache=True, logits_to_keep=1)
            cache = read.past_key_values
            cache.batch_repeat_interleave(len(after))
            ids = self._tensor([text + [0] * (longest - len(text)) for text in after])
            counted = self._tensor([[1] * len(text) + [0] * (longest - len(text)) for text in after])
            logits = read.logits[:, -1:].expand(len(after), -1, -1)
            if longest > 1:
                more = self.model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True).logits
                logits = torch.cat([logits, more], dim=1)
            nats = functional.cross_entropy(logits.transpose(1, 2).float(), ids, reduction="none")
        return np.asarray(-(nats * counted).sum(dim=1).cpu().numpy(), np.float64)

    def written(self, prompts: Sequence[str], most: int) -> list[str]:
        """What the model writes behind each prompt to the end of the line, always the likeliest token."""
        import torch

        found = []
        eos = max(self.codec.eos_id, 0)
        for start in range(0, len(prompts), ROWS):
            parts = [ids[-(self.window - most) :] or [eos] for ids in self.codec.encode(prompts[start : start + ROWS])]
            width = max(map(len, parts))
            ids = self._tensor([[eos] * (width - len(part)) + part for part in parts])
            seen = self._tensor([[0] * (width - len(part)) + [1] * len(part) for part in parts])
            lines = [""] * len(parts)
            written: list[list[int]] = [[] for _ in parts]
            open_rows = set(range(len(parts)))
            cache = None
            with torch.inference_mode():
                for _ in range(most):
                    places = (seen.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                    read = self.model(
                        input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=cache,
                        use_cache=True, logits_to_keep=1,
                    )  # fmt: skip
                    cache = read.past_key_values
                    ids = read.logits[:, -1].argmax(dim=-1, keepdim=True)
                    seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
                    for row in list(open_rows):
                        token = int(ids[row])
                        if token != eos:
                            written[row].append(token)
                        lines[row], newline, _ = self.codec.decode(written[row]).lstrip("\n").partition("\n")
                        if token == eos or newline:
                            open_rows.discard(row)
                    if not open_rows:
                        break
            found += [line.strip() for line in lines]
        return found

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Any:
        import torch

        return torch.tensor(rows, dtype=torch.long, device=self.model.device)
