"""Secrets in text, found and replaced before the text goes anywhere.

The base is the rule set of detect-secrets; on top come tokens that it does not know, credentials in URLs and in
assignments, and random values in quotes. A value is replaced by ``[redacted:rule]``; what it was is kept nowhere.
"""

import base64
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct

RULES = "secrets-2"
"""Part of every fingerprint that covers redacted text: count it up when a rule changes."""


class _Rule(Struct, frozen=True):
    """A pattern; if it has groups, the first that matched is the secret. ``hints`` are lower-case pieces of text of
    which one must be there, because looking for them is a hundred times faster; with ``lines``, in the line of the
    match. ``judge`` has the last word.
    """

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    lines: bool = False
    judge: Callable[[str], bool] | None = None


def _entropy(text: str) -> float:
    """Shannon's, in bits per character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _mixed(value: str) -> bool:
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


_PLACEHOLDER = re.compile(
    r"(?i).{0,3}|x+|\*+|\.+|_+|-+|0+|1?2?3456?7?8?9?0?|<.*>?|\$.*|%.*|\{.*|\[.*|@.*|.*\.\.\..*|.*[({].*[)}].*"
    r"|(?:your|my|the|some|a|an|test|dev|demo|dummy|fake|sample|example|default|secret|password|passwd|pass|pwd|token"
    r"|key|api|user|username|admin|root|changeme|change|me|none|null|nil|true|false|todo|placeholder|redacted|hidden"
    r"|string|value|here|insert|put|foo|bar|baz|qux|test\w{0,4}|prod\w*|public|private|client|server|app|auth|login"
    r"|field|name|text|input|type|str|int|required|optional|empty|unset|env|var|config|settings?|is|not|for|new|old"
    r"|hash|wrong|correct|invalid|valid|bad|good|super|long|very|random|bytes|id|in|to|of|with|and|or|on|this|it|no"
    r"|yes|[-_. :/\d!]){1,16}"
)
_CODE = re.compile(
    r"[a-z_]\w*(?:\.[a-zA-Z_]\w*)+|[a-z]+(?:[A-Z][a-z]+)+|[A-Z_]+|[a-z_]+|[a-z]+(?:-[a-z]+)+|/?(?:[\w.-]+/)+[\w.-]*"
)
_PLACE = re.compile(r"\w+://.*|(?:~|\.{1,2})?/[a-z0-9_./-]+|[\w./-]+/[\w-]+\.[a-z]{2,5}")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def _password(value: str) -> bool:
    """Whether a value that is assigned to a name like `password` looks like one."""
    if len(value) < 6 or _PLACEHOLDER.fullmatch(value) or _PLACE.fullmatch(value):
        return False
    return _mixed(value) or not _CODE.fullmatch(value)


def _credential(value: str) -> bool:
    """The same where nothing but the name says so: it must look made, not written."""
    return len(value) >= 8 and _password(value) and _mixed(value) and _entropy(value) >= 2.8


def _in_url(value: str) -> bool:
    return len(value) >= 4 and not _PLACEHOLDER.fullmatch(value)


def _random(value: str) -> bool:
    """Base64 as nobody writes it: all kinds of characters, spread evenly."""
    kinds = (str.isupper, str.islower, str.isdigit)
    if "abcdefgh" in value.lower():
        return False  # an alphabet
    return all(any(map(kind, value)) for kind in kinds) and _entropy(value) >= min(4.5, 0.9 * math.log2(len(value)))


def _made(value: str) -> bool:
    """A credential where prose and code are likely: digits in it change with other characters more than in a name."""
    turns = sum(before.isdigit() != after.isdigit() for before, after in pairwise(value))
    return _credential(value) and turns >= (5 if _NAME.fullmatch(value) else 3)


def _encoded(value: str) -> bool:
    """Whether a text between two markers holds what a key is made of."""
    return any(_random(found) for found in re.findall(r"[A-Za-z0-9+/]{40,}", value))


def _pair(value: str) -> bool:
    """Whether a text is a user's name and a password in base64."""
    try:
        told = base64.b64decode(value, validate=True).decode()
    except ValueError:  # no base64, no UTF-8, or not ASCII: where case does not count, some other letters match
        return False
    return told.isprintable() and ":" in told and _in_url(told.partition(":")[2])


_LEFT_OUT = frozenset(
    {
        "public-ip-ipv4", "basic-auth-credentials", "private-key", "telegram-bot-token", "github-token", "gitlab-token",
        "json-web-token", "discord-bot-token",
    }
)  # fmt: skip
"""An address is no secret; the others our own rules find more exactly."""

_LOOSE = frozenset({"artifactory-credentials", "twilio-api-key", "mailchimp-access-key"})
"""Rules that common words fit: what they find must look made."""


_JUDGES: dict[str, Callable[[str], bool]] = {
    "mixed": _mixed, "password": _password, "credential": _credential, "in_url": _in_url, "random": _random,
    "made": _made, "encoded": _encoded, "pair": _pair,
}  # fmt: skip


@cache
def _rules() -> tuple[_Rule, ...]:
    """All rules, in the order in which they are tried. Loads detect-secrets: only when something is to be read."""
    written = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))

    def rule(one: dict[str, Any]) -> _Rule:
        pattern = one["pattern"]
        for name, part in written["parts"].items():
            pattern = pattern.replace(f"{{{name}}}", part)
        hints, judge = tuple(one.get("hints", ())), _JUDGES.get(one.get("judge", ""))
        return _Rule(one["name"], re.compile(pattern), hints, one.get("lines", False), judge)

    first = [rule(one) for one in written["rule"] if not one.get("last")]
    last = [rule(one) for one in written["rule"] if one.get("last")]
    return (*first, *_of_detect_secrets(written["base"]), *last)


def load() -> None:
    """Make the rules ready, which takes a moment the first time."""
    _rules()


@cache
def _hints() -> frozenset[str]:
    return frozenset(hint for rule in _rules() for hint in rule.hints)


@lru_cache(maxsize=1024)
def _rules_of(there: frozenset[str]) -> tuple[_Rule, ...]:
    """The rules that texts with these hints can hold something of."""
    return tuple(rule for rule in _rules() if not rule.hints or not there.isdisjoint(rule.hints))


def _of_detect_secrets(hints: dict[str, list[str]]) -> Iterator[_Rule]:
    import importlib
    import pkgutil

    from detect_secrets import plugins
    from detect_secrets.plugins.base import RegexBasedDetector

    for module in pkgutil.iter_modules(plugins.__path__):
        for kind in vars(importlib.import_module(f"{plugins.__name__}.{module.name}")).values():
            if not (isinstance(kind, type) and issubclass(kind, RegexBasedDetector)):
                continue
            if kind.__module__ != f"{plugins.__name__}.{module.name}" or kind is RegexBasedDetector:
                continue
            name = re.sub(r"\W+", "-", str(vars(kind)["secret_type"]).lower()).strip("-")
            if name not in _LEFT_OUT:
                judge = _mixed if name in _LOOSE else None
                yield from (_Rule(name, one, tuple(hints.get(name, ())), judge=judge) for one in kind().denylist)


class Redactor:
    """Replaces secrets in texts. ``allow`` are values that are none; a pattern may hold ``*``."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._allow = allow

    def __call__(self, text: str, found: Counter[str]) -> str:
        """The text without its secrets; each is counted in ``found`` by its rule. Once more changes nothing."""
        while (cleaned := self._once(text, found)) != text:
            text = cleaned
        return text

    def _once(self, text: str, found: Counter[str]) -> str:
        lowered = text.lower()
        for rule in _rules_of(frozenset([hint for hint in _hints() if hint in lowered])):
            cleaned = self._apply(rule, text, lowered, found)
            if cleaned is not text:
                text, lowered = cleaned, cleaned.lower()
        return text

    def _apply(self, rule: _Rule, text: str, lowered: str, found: Counter[str]) -> str:
        pieces, end = [], 0
        for start, stop in self._spans(rule, text, lowered):
            if start >= end:
                pieces += [text[end:start], f"[redacted:{rule.name}]"]
                end = stop
                found[rule.name] += 1
        return "".join((*pieces, text[end:])) if pieces else text

    def _spans(self, rule: _Rule, text: str, lowered: str) -> Iterator[tuple[int, int]]:
        for match in _matches(rule, text, lowered):
            group = next((number for number, value in enumerate(match.groups(), start=1) if value), 0)
            value = match[group]
            if "[redacted:" in value or _in_marker(text, match.start()):
                continue
            if (rule.judge is None or rule.judge(value)) and not any(
                fnmatchcase(value, pattern) for pattern in self._allow
            ):
                yield match.span(group)


def _matches(rule: _Rule, text: str, lowered: str) -> Iterator[re.Match[str]]:
    if not rule.lines or len(lowered) != len(text):  # in a few languages lower case is longer
        yield from rule.pattern.finditer(text)
        return
    places = {hint: lowered.find(hint) for hint in rule.hints}
    end = 0
    while places := {hint: place for hint, place in places.items() if place >= 0}:
        first = min(places.values())
        start = max(end, text.rfind("\n", 0, first) + 1)
        end = text.find("\n", first) + 1 or len(text)
        yield from rule.pattern.finditer(text, start, end)
        places = {hint: lowered.find(hint, end) if place < end else place for hint, place in places.items()}


def _in_marker(text: str, at: int) -> bool:
    """Whether a place lies inside a ``[redacted:rule]``, whose name may look like that of a secret."""
    begin = text.rfind("[redacted:", max(0, at - 60), at)
    return begin >= 0 and "]" not in text[begin:at]
