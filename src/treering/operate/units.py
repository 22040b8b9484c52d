"""What starts the watcher for good: a unit of systemd, or an agent of launchd. Text only; nothing is installed."""

import plistlib
from collections.abc import Sequence
from pathlib import Path

from treering.errors import UsageError

NAME = "treering-watch"
AGAIN_SECONDS = 60
"""After a failure it is started again, not sooner."""


def systemd(command: Sequence[str], path: str) -> str:
    """A unit of the user's systemd that runs a command; its programs are looked for in ``path``."""
    _printable(command)
    program, *arguments = command
    line = " ".join((_quoted(program, dollars=False), *(_quoted(one) for one in arguments)))
    return f"""\
# ~/.config/systemd/user/{NAME}.service
# systemctl --user daemon-reload && systemctl --user enable --now {NAME}
[Unit]
Description=treering keeps its index up to date

[Service]
ExecStart={line}
Environment={_quoted(f"PATH={path}", dollars=False)}
Restart=on-failure
RestartSec={AGAIN_SECONDS}
Nice=19
IOSchedulingClass=idle

[Install]
WantedBy=default.target
"""


def launchd(command: Sequence[str], path: str, home: Path) -> str:
    """An agent of launchd that runs a command: ``~/Library/LaunchAgents/treering-watch.plist``, and
    ``launchctl load -w`` of it.
    """
    _printable(command)
    return plistlib.dumps(
        {
            "Label": NAME,
            "ProgramArguments": list(command),
            "EnvironmentVariables": {"PATH": path},
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": AGAIN_SECONDS,
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "Nice": 19,
            "StandardErrorPath": str(home / "Library" / "Logs" / f"{NAME}.log"),
        },
        sort_keys=False,
    ).decode()


def _printable(command: Sequence[str]) -> None:
    for word in command:
        if not word.isprintable():
            raise UsageError(f"{word!r} cannot be named in a unit", "give the repository a path of printable letters")


def _quoted(word: str, *, dollars: bool = True) -> str:
    """A word as systemd reads it: in quotes, with what it would replace doubled."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if dollars else escaped}"'
