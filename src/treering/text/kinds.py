"""What kind of file a path names, by the rules of ``kinds.toml``: so that noise has a name and what is left out can be
counted. What a repository says of its own files in ``.gitattributes`` (linguist's attributes) comes before all rules.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["source", "test", "docs", "config", "lock", "generated", "vendored", "binary", "log", "data"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RULES = "kinds-1"
"""Part of every fingerprint that covers a kind: count it up when a rule changes."""

NOISE: frozenset[Kind] = frozenset({"lock", "generated", "vendored", "binary", "log", "data"})
"""Kinds whose hunks say nothing of what a person meant: later stages leave those hunks out, and count them."""


def kind_of(path: str, attributes: Mapping[str, bool] | None = None) -> Kind:
    """The kind of a path; ``attributes`` are the linguist attributes the repository gives it."""
    said = attributes or {}
    if said.get("linguist-generated"):
        return "generated"
    if said.get("linguist-vendored"):
        return "vendored"
    if said.get("linguist-documentation"):
        return "docs"
    denied = {"generated": "linguist-generated", "vendored": "linguist-vendored", "docs": "linguist-documentation"}
    *folders, name = path.split("/")
    lowered = [folder.lower() for folder in folders]
    fitting = (rule.kind for rule in _rules() if rule.fits(name, lowered))
    return next((kind for kind in fitting if said.get(denied.get(kind, "")) is not False), "source")


class _Rule:
    def __init__(self, written: Mapping[str, str | list[str]]) -> None:
        def listed(key: str) -> frozenset[str]:
            return frozenset(str(written.get(key, "")).split())

        self.kind: Kind = written["kind"]  # type: ignore[assignment]  # a test compares them
        self._names, self._folders, self._suffixes = listed("names"), listed("folders"), listed("suffixes")
        patterns = list(written.get("patterns", []))
        whole = [one for one in patterns if "/" in one]
        self._name = re.compile("|".join(one for one in patterns if "/" not in one) or r"(?!)", re.IGNORECASE)
        self._path = re.compile("|".join(whole), re.IGNORECASE) if whole else None

    def fits(self, name: str, folders: list[str]) -> bool:
        """Whether a file's name, and the folders on the way to it in lower case, are of this kind."""
        lowered = name.lower()
        return bool(
            lowered in self._names
            or not self._folders.isdisjoint(folders)
            or ("." in name and lowered.rpartition(".")[2] in self._suffixes)
            or self._name.search(name)
            or (self._path and self._path.search("/".join((*folders, name))))
        )


@cache
def _rules() -> tuple[_Rule, ...]:
    written = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return tuple(_Rule(rule) for rule in written["rule"])
