"""Context packs: what a history holds on a question, as one text for a model, within a budget of tokens."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from treering.assist.facts import Fact
from treering.assist.quoting import harmless, nonce_of, quoted, rules
from treering.errors import UsageError
from treering.tokens.tokenizer import load_tokenizer

Audience = Literal["claude", "local"]
Count = Callable[[str], int]
"""How many tokens a text is."""

SHORTEST = 4
"""Lines that a piece has at least after it was shortened."""
NAME = 12
"""Digits of a commit's hash in a prompt."""


class ContextPack(Struct, frozen=True):
    """What a model is given to answer a question from: ``text`` holds the ``facts``, each between marks. It alone is
    for a prompt: the text of a fact has no marks.

    ``tokens`` is exactly how many ``text`` is by the tokenizer of ``audience``, and never above ``budget``.
    ``left_out`` names what there was to tell besides, and what was shortened.
    """

    question: str
    audience: Audience
    budget: int
    tokens: int
    text: str
    facts: tuple[Fact, ...]
    left_out: tuple[str, ...]


def counter(audience: Audience, model: Path | None) -> Count:
    """How tokens are counted for an audience: by the current model's own tokenizer, without loading the model; for
    Claude, whose tokenizer is not published, by GPT-2's.
    """
    tokenizer = load_tokenizer(str(model) if audience == "local" and model else "gpt2")
    return lambda text: len(tokenizer.encode([text])[0])


def pack(question: str, told: Iterable[Fact], count: Count, *, budget: int, audience: Audience) -> ContextPack:
    """The facts that fit, the first ones first. What does not fit whole is shortened, if enough of it is left, and what
    comes after it is still tried.

    Raises :class:`UsageError` if nothing fits.
    """
    candidates = list(told)
    nonce = nonce_of([question, *(fact.text for fact in candidates)])
    head = f"{rules(nonce)}\n"
    blocks: list[tuple[Fact, str]] = []
    left_out: list[str] = []
    too_large: list[str] = []
    used = count(head)
    for fact in candidates:
        for tried in _shorter(fact):
            block = _block(tried, nonce)
            tokens = count(block)
            if used + tokens <= budget:
                blocks.append((replace(tried, text=harmless(tried.text, nonce), tokens=tokens), block))
                used += tokens
                if tried is not fact:
                    left_out.append(f"{_named(fact)}: shortened")
                break
        else:
            left_out.append(f"{_named(fact)}: {tokens:,} tokens at the least")
            too_large.append(block)
    text = head + "".join(block for _, block in blocks)
    while blocks and count(text) > budget:  # two texts that are joined may be more tokens than both
        fact, block = blocks.pop()
        left_out.append(f"{_named(fact)}: {fact.tokens:,} tokens")
        too_large.append(block)
        text = head + "".join(block for _, block in blocks)
    if not blocks and (candidates or count(text) > budget):
        smallest = min((count(head + block) for block in too_large), default=count(head))
        raise UsageError(
            f"a budget of {budget:,} tokens holds nothing: the rules and the smallest piece are {smallest:,}",
            "give a larger --budget",
        )
    facts = tuple(fact for fact, _ in blocks)
    return ContextPack(question, audience, budget, count(text), text, facts, tuple(left_out))


def _shorter(fact: Fact) -> Iterator[Fact]:
    """A fact, then with half of its lines, and half again."""
    yield fact
    lines = fact.text.split("\n")
    kept = len(lines) // 2
    while kept >= SHORTEST:
        note = f"[… {len(lines) - kept} lines left out]"
        yield replace(fact, text="\n".join([*lines[:kept], note]))
        kept //= 2


def _block(fact: Fact, nonce: str) -> str:
    where = {"kind": fact.kind, "commit": fact.commit_hash[:NAME], "path": fact.path, "why": fact.why}
    return quoted(fact.text, nonce, where)


def _named(fact: Fact) -> str:
    return f"{fact.kind} of {fact.commit_hash[:7]}{f' in {fact.path}' if fact.path else ''}"
