"""The history's own answer to a question: of the commits that tell most of it what they say and change, in their own
words; what came of them, and where it stands now. No model has a part in it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from treering.assist.evidence import weight_of
from treering.assist.facts import Fact
from treering.assist.quoting import harmless
from treering.text.kinds import kind_of

TELLING = 4
"""Of how many commits it tells at most."""
HALF = 0.5
"""A commit that tells less than such a part of what the best one tells is none of them."""
QUOTED = 0.25
"""What part of a question's words, by how rare they are, a line holds that is quoted from a change."""
SHORT = 240
"""Characters of a line or a sentence."""
PATHS = 3

_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n(?=\s*[-*•])")
_LIKE_A_CITATION = re.compile(r"\[(?=[^\]]*?(?<![0-9A-Za-z])[0-9a-fA-F]{7})")


@dataclass(frozen=True, slots=True)
class _Telling:
    """A commit as it is told: its subject, when and by whom, the sentence and the line that hold most of the question
    (empty where none holds enough), and how much that is.
    """

    commit_hash: str
    subject: str
    made: str
    sentence: str
    line: str
    paths: str
    worth: float


def quotations(facts: Sequence[Fact], rarity: dict[str, float]) -> tuple[str, list[str]]:
    """The answer, and the commits that it cites."""
    commits = _telling(facts, rarity)
    lines = ["This commit tells of it:" if len(commits) == 1 else f"These {len(commits)} commits tell most of it:"]
    cited = [one.commit_hash for one in commits]
    beside = {
        fact.commit_hash: fact
        for fact in facts
        if fact.kind == "related" and not fact.path and not fact.why.startswith("the merge")
    }
    for one in commits:
        became = f"; {beside.pop(one.commit_hash).why}" if one.commit_hash in beside else ""
        made = f"({_quiet(one.made)}{became})"
        lines.append(f"- {_quiet(one.subject) or '(no message)'} {made} {_citation(one.commit_hash)}")
        if one.sentence:
            lines.append(f"  It says: {_quiet(one.sentence)}")
        if one.line or one.paths:
            lines.append(f"  It {_quiet(one.line or f'changes {one.paths}')}")
    for name, fact in beside.items():
        lines.append(f"- Beside them, {fact.why}: {_quiet(_subject(fact))} {_citation(name)}")
        cited.append(name)
    files = [fact for fact in facts if fact.kind == "file"]
    if now := next((fact for fact in files if kind_of(fact.path) == "source"), next(iter(files), None)):
        lines.append(f"- Now see {_quiet(now.path)}, {now.why} in {_citation(now.commit_hash)}")
        if (said := _best(now.text.split("\n"), rarity)) and _held(said, rarity) >= QUOTED:
            lines.append(f"  It has: {_quiet(said.strip())}")
        cited.append(now.commit_hash)
    return "\n".join(lines), list(dict.fromkeys(cited))


def _telling(facts: Sequence[Fact], rarity: dict[str, float]) -> list[_Telling]:
    """The commits that tell most, best first: by what their own words hold of the question, and by their rank in the
    search. What says the same as one before it is left out.
    """
    found = [
        _told(fact, [one for one in facts if one.kind == "hunk" and one.commit_hash == fact.commit_hash], rarity, rank)
        for rank, fact in enumerate(fact for fact in facts if fact.kind == "commit")
    ]
    found.sort(key=lambda one: -one.worth)
    kept: dict[tuple[str, str, str], _Telling] = {}
    for one in found:
        if one.worth >= HALF * found[0].worth:
            kept.setdefault((one.subject, one.sentence, one.line), one)
    return list(kept.values())[:TELLING]


def _told(fact: Fact, hunks: Sequence[Fact], rarity: dict[str, float], rank: int) -> _Telling:
    """One commit; the text of its fact is the subject, what else it says, its figures and its files."""
    subject, *rest = fact.text.split("\n")
    paths = rest.pop().removeprefix("in ") if rest and rest[-1].startswith("in ") else ""
    made = rest.pop().partition("; ")[0] if rest else ""
    body = "\n".join(rest)
    sentence = " ".join(_best(_SENTENCES.split(body), rarity).split())
    line, held = "", 0.0
    for hunk in hunks:
        for sign, verb in (("+", "adds to"), ("-", "takes from")):
            best = _best([one[1:] for one in hunk.text.split("\n") if one[:1] == sign], rarity).strip()
            if _held(best, rarity) > max(held, QUOTED):
                line, held = f"{verb} {hunk.path}: {best}", _held(best, rarity)
    first = paths.split(", ")
    return _Telling(
        fact.commit_hash, subject, made, sentence, line,
        ", ".join(first[:PATHS]) + (" and others" if len(first) > PATHS else ""),
        max(_held(f"{subject}\n{body}", rarity), HALF * held) + 1 / (rank + 2),
    )  # fmt: skip


def _subject(fact: Fact) -> str:
    return fact.text.partition("\n")[0]


def _citation(name: str) -> str:
    return f"[{name[:10]}]"


def _held(text: str, rarity: dict[str, float]) -> float:
    """What part of a question's words a text holds, by how rare they are."""
    return weight_of(text, rarity) / (sum(rarity.values()) or 1.0)


def _best(texts: Sequence[str], rarity: dict[str, float]) -> str:
    """The one that holds most of the question; empty if none holds anything."""
    best = max(texts, key=lambda text: _held(text, rarity), default="")
    return best if _held(best, rarity) > 0 else ""


def _quiet(text: str) -> str:
    """Words of the repository within our own, on one line: nothing in brackets there is a citation of ours."""
    said = _LIKE_A_CITATION.sub("(", harmless(text).replace("\n", "\\n"))
    return said if len(said) <= SHORT else f"{said[:SHORT]} […]"
