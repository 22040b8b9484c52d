"""Telling somebody that a figure got worse, once, and once more when it is over: by a POST, by a program of theirs."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct, to_builtins

from treering.config import MonitorSettings, without_keys
from treering.errors import DataError, ServiceError, UsageError
from treering.files import locked, read_json, write_json
from treering.types import Series, Trend

FILE = "alerts.json"
TRIES = 3


class Alert(Struct, frozen=True):
    """What is sent, as JSON: ``at`` the newest run. ``text`` says all of it, for chats show that field."""

    kind: Literal["worse", "over"]
    repo: str
    series: str
    title: str
    unit: str
    newest: float | None
    before: float | None
    change: tuple[float, float, float] | None
    chance: float | None
    at: str
    text: str


Known = dict[str, dict[str, str]]
"""By channel and series, the kind of alert that was delivered last."""


def due(trend: Trend, known: Mapping[str, str]) -> list[Alert]:
    """The alerts that somebody who was told ``known`` is not yet told of."""
    alerts = []
    for one in trend.series:
        if one.state == "worse" and known.get(one.name) != "worse":
            alerts.append(_alert("worse", trend, one))
        elif one.state in ("steady", "better") and known.get(one.name) == "worse":
            alerts.append(_alert("over", trend, one))
    return alerts


def _alert(kind: Literal["worse", "over"], trend: Trend, one: Series) -> Alert:
    figures = f"{one.before:.4g} → {one.newest:.4g} {one.unit}".rstrip() if one.before is not None else ""
    said = "got worse" if kind == "worse" else "is as before again"
    return Alert(
        kind=kind,
        repo=trend.repo,
        series=one.name,
        title=one.title,
        unit=one.unit,
        newest=one.newest,
        before=one.before,
        change=one.change,
        chance=one.chance,
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(trend.until)),
        text=f"{trend.repo}: {one.title} {said}: {figures}",
    )


def tell(folder: Path, trend: Trend, settings: MonitorSettings, warn: Callable[[str], None]) -> list[Alert]:
    """Deliver what is due to everyone who is to be told, and remember what arrived; what did not is tried again by the
    next call. Returns what arrived anywhere. One process at a time.
    """
    channels: dict[str, Callable[[bytes], None]] = {}
    if settings.webhook:
        channels["webhook"] = lambda content: post(settings.webhook, content, settings.seconds)
    if settings.command:
        channels["command"] = lambda content: hand(settings.command, content, settings.seconds)
    if not channels:
        return []
    told: list[Alert] = []
    with locked(folder / "alerts.lock", "treering monitor", patience=60.0):
        known = _known(folder / FILE, warn)
        for channel, deliver in channels.items():
            of = known.setdefault(channel, {})
            for alert in due(trend, of):
                try:
                    deliver(json.dumps(to_builtins(alert)).encode())
                except (ServiceError, UsageError) as error:
                    warn(f"an alert was not delivered: {error.message} ({error.hint})")
                    break
                of[alert.series] = alert.kind
                write_json(folder / FILE, known)
                told += [alert] if alert not in told else []
    return told


def _known(path: Path, warn: Callable[[str], None]) -> Known:
    try:
        return read_json(path, Known) if path.exists() else {}
    except DataError as error:
        warn(f"alerts may come twice: {error.message}")
        return {}


def post(url: str, content: bytes, seconds: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """POST JSON, up to :data:`TRIES` times. Raises :class:`ServiceError`, which names the host alone: the rest of an
    address may be a secret.
    """
    import urllib.error  # every run would load HTTP for those that alert somebody
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        """Another address gets nothing: it is not the one that was named."""

        def redirect_request(self, *_: Any) -> None:
            return None

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("the webhook is no address", "give TREERING_MONITOR_WEBHOOK a URL with http:// or https://")
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"}, method="POST")  # noqa: S310  checked above
    opener, why = urllib.request.build_opener(Stay), ""
    for number in range(TRIES):
        if number:
            sleep(2.0 ** (number - 1))
        try:
            with opener.open(request, timeout=seconds):
                return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"it answered {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, ValueError) as error:
            why = str(getattr(error, "reason", "") or type(error).__name__)
    raise ServiceError(f"the webhook at {parts.hostname} took no alert: {why}", "it is tried again at the next look")


def hand(command: str, content: bytes, seconds: float) -> None:
    """Run a program with an alert on stdin; no shell reads the line. Raises :class:`ServiceError`."""
    argv = _parts(command)
    hint = "TREERING_MONITOR_COMMAND is a program and its arguments"
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=without_keys(os.environ), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ServiceError(f"the alert's program cannot run: {error.strerror}", hint) from error
    with process:
        try:
            process.communicate(content, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and what it started
            process.communicate()
            raise ServiceError(f"the alert's program took over {seconds:g} s", hint) from error
    if process.returncode:
        raise ServiceError(f"the alert's program ended with code {process.returncode}", hint)


def _parts(command: str) -> Sequence[str]:
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the alert's command: {error}", "quote it as a shell would, though none reads it") from error
    if not parts:
        raise UsageError("the alert's command is empty", "give TREERING_MONITOR_COMMAND a program")
    return parts
