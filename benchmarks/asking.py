"""When is there too little evidence to answer? Asks indexed repositories questions that they can answer (`asking.json`,
`questions.json`), the other repositories' questions, and questions about what is in none of them.

    python benchmarks/asking.py flask=REPO=STORE requests=REPO=STORE redis=REPO=STORE the-block=REPO=STORE

Prints, for thresholds of the rule of `assist/evidence.py`, how many questions of each kind are refused.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from treering import opening
from treering.assist.evidence import ENOUGH, ENOUGH_WORDS, Evidence, evidence
from treering.finding import desk
from treering.report import Reporter

HERE = Path(__file__).parent
NOWHERE = "nowhere"


def questions() -> dict[str, list[str]]:
    """By the repository that can answer them."""
    written: dict[str, list[str]] = json.loads((HERE / "asking.json").read_text("utf-8"))
    silent = json.loads((HERE / "questions.json").read_text("utf-8"))["questions"]
    return written | {"the-block": [one["query"] for one in silent]}


def measured(name: str, repo: str, store: str) -> list[tuple[str, Evidence]]:
    """What a repository holds on every question, with what kind of question it is to it."""
    with desk(opening.place(Path(repo), Path(store)), Reporter.to_stderr()) as opened:
        kinds = {name: "its own", NOWHERE: NOWHERE}
        return [
            (kinds.get(of, "other repositories'"), evidence(opened.finder, question))
            for of, asked in questions().items()
            for question in asked
        ]


def refused(found: list[tuple[str, Evidence]], kind: str, *, enough: float, words: bool) -> str:
    """How many questions of a kind are below a threshold, of how many."""
    of = [replace(one, cosine=None) if words else one for told, one in found if told == kind]
    below = sum(one.coverage + (one.cosine or 0.0) < enough for one in of)
    return f"{below}/{len(of)}"


def main(places: list[str]) -> None:
    found = {name: measured(name, repo, store) for name, repo, store in (place.split("=") for place in places)}
    for words, chosen, thresholds in (
        (False, ENOUGH, (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)),
        (True, ENOUGH_WORDS, (0.3, 0.35, 0.4, 0.45, 0.5)),
    ):
        print("coverage alone, without vectors" if words else "coverage + cosine")
        for enough in thresholds:
            for name, of in found.items():
                rows = (f"{kind} {refused(of, kind, enough=enough, words=words)}" for kind in
                        ("its own", NOWHERE, "other repositories'"))  # fmt: skip
                print(f"  {enough:.2f}{'*' if enough == chosen else ' '} {name:10s} refused: {', '.join(rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
