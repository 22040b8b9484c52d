"""What a command tells its user: progress and talk on stderr, warnings counted, text made safe for a terminal.

Library code takes a :class:`Reporter` and never prints. The faces decide where it speaks.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

T = TypeVar("T")


def printable(text: str) -> str:
    """``text`` with every control character but newline and tab made visible, so no message can drive a terminal."""
    return "".join(
        char if char in "\n\t" or (char.isprintable() and not "\ud800" <= char <= "\udfff") or char == "\u3000"
        else f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
        for char in text
    )  # fmt: skip


def one_line(text: str) -> str:
    """Printable, and no line break: a file's name cannot forge a line of a result."""
    return printable(text.replace("\n", "\\n"))


def in_code(text: str) -> str:
    """One line as code in Markdown, where nothing of a repository's text formats, links or calls anybody."""
    return "``" + (one_line(text).replace("`", "'") or " ") + "``"


@dataclass(slots=True)
class Reporter:
    """Silent by default. ``say`` is talk, ``warn`` is talk that is also counted, ``track`` is progress."""

    out: TextIO | None = None
    log: TextIO | None = None
    verbose: bool = False
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def to_stderr(cls, *, log: Path | None = None, verbose: bool = False) -> "Reporter":
        return cls(sys.stderr, log.open("a", encoding="utf-8") if log else None, verbose)

    def say(self, text: str) -> None:
        self._write(text)

    def detail(self, text: str) -> None:
        """Said only with ``--verbose``; always in the log."""
        self._write(text, aloud=self.verbose)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._write(f"warning: {text}")

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Pass ``items`` through, showing a bar while they pass if stderr is a terminal."""
        started = time.monotonic()
        count = 0
        with self._bar(total, what) as advance:
            for item in items:
                yield item
                count += 1
                advance()
        seconds = time.monotonic() - started
        self.detail(f"{what}: {count:,} in {seconds:.1f} s, {count / max(seconds, 1e-3):,.1f} a second")

    def _bar(self, total: int, what: str) -> "_Bar":
        return _Bar(total, what, shown=self.out is not None and self.out.isatty())

    def _write(self, text: str, *, aloud: bool = True) -> None:
        if self.out and aloud:
            print(printable(text), file=self.out, flush=True)
        if self.log:
            self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {printable(text)}\n")
            self.log.flush()


class _Bar:
    """rich's progress bar, imported only when there is a terminal to draw on."""

    def __init__(self, total: int, what: str, *, shown: bool) -> None:
        self.total, self.what, self.shown = total, what, shown

    def __enter__(self) -> Callable[[], None]:
        if not self.shown:
            return lambda: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Rate(TextColumn):
            def render(self, task: Task) -> Text:
                return Text("" if task.speed is None else f"{task.speed:,.0f}/s")

        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self.progress.start()
        task = self.progress.add_task(self.what, total=self.total)
        return lambda: self.progress.advance(task)

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.progress.stop()
