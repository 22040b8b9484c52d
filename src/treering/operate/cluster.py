"""Work spread over many processes, on one machine or many, by Ray Data. The only module that knows Ray.

A row of work is a line of JSON, and so is what became of it. Who works is made once in each process, does one row after
the other, and must not raise. A process that dies is made anew, and the row that it was at is given to another one.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from treering.errors import ServiceError, needs

ADDRESS = "RAY_ADDRESS"
"""The environment variable that names a cluster."""
OBJECTS = 128 << 20
"""Bytes of shared memory of a cluster that is started here: rows are short."""
AHEAD = 2
"""Rows that wait at a process while it is at one: more would wait behind a large repository while others are idle."""

QUIET = {
    "RAY_ENABLE_AUTO_CONNECT": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}  # fmt: skip
"""What Ray need not do or say; the user's environment comes first."""
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""A cluster that is started here listens on the loopback only, and to nobody without its token."""

Work = Callable[[bytes], bytes]


def named() -> str:
    """The address of the cluster that works; without one, or by Ray's name for that, `local`, one is started here, and
    ended with the work.
    """
    address = os.environ.get(ADDRESS, "")
    return "" if address == "local" else address


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """Ray, as the environment says, or of so many processes on this machine. Raises :class:`ServiceError`."""
    address = named()
    _listens(address)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as logs:
        here: dict[str, Any] = {
            "num_cpus": workers, "num_gpus": 0, "object_store_memory": OBJECTS, "include_dashboard": False,
            "_temp_dir": logs,
        }  # fmt: skip
        how = {} if address else here
        with _environment(QUIET | ({} if address else ALONE | {"RAY_AUTH_TOKEN": _token()})):
            with needs("fleet"), _silent():
                import ray
                import ray.data
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            try:
                with _silent():
                    ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **how)
            except (ConnectionError, RuntimeError, OSError, ValueError) as error:
                raise ServiceError(
                    f"no Ray answers at {address}: {error}" if address else f"Ray does not start: {error}",
                    f"look at {ADDRESS}" if address else "look for what it says when `ray start --head` is asked",
                ) from error
            with (
                _asked_to_end(),
                _turned(1, 2),
            ):  # it tells there what becomes of its processes; data is not its to write
                try:
                    yield
                except ray.exceptions.RayError as error:
                    said = str(error).strip().splitlines()
                    raise ServiceError(
                        f"Ray ended before the work did: {said[0] if said else type(error).__name__}",
                        "run it again: what was done is kept",
                    ) from error
                finally:
                    ray.shutdown()


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """More in the environment inside the block, for what is not set in it."""
    before = dict(os.environ)
    os.environ |= {**more, **before}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """Inside the block SIGTERM, which ends a job, is an interrupt; by what Ray makes of it, the process ends on the
    spot.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def _token() -> str:
    """Of a cluster that is started here; Ray reads it once in a process."""
    return secrets.token_hex(32)


def _listens(address: str) -> None:
    """Ray itself would wait for minutes for a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ServiceError(f"no Ray answers at {address}: {error}", f"look at {ADDRESS}") from error


@contextmanager
def _silent() -> Iterator[None]:
    """What Ray's libraries write to stderr while they start goes nowhere: what is wrong, they raise."""
    with Path(os.devnull).open("wb") as nowhere, _turned(2, nowhere.fileno()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _turned(stream: int, to: int) -> Iterator[None]:
    """What is written to a stream inside the block, by C++ too, goes to another one."""
    for one in (sys.stdout, sys.stderr):
        one.flush()
    kept = os.dup(stream)
    os.dup2(to, stream)
    try:
        yield
    finally:
        for one in (sys.stdout, sys.stderr):
            one.flush()
        os.dup2(kept, stream)
        os.close(kept)


class _Hand:
    """Who works, as Ray wants it: a row is a table's."""

    def __init__(self, made: Callable[[], Work]) -> None:
        self._work = made()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"line": self._work(row["line"])}


def spread(lines: Sequence[bytes], made: Callable[[], Work], workers: int) -> Iterator[bytes]:
    """What becomes of each line, as it is done, in any order. ``made`` is called in each of so many processes."""
    import ray.data

    with _silent():
        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = ray.data.from_items([{"line": line} for line in lines], override_num_blocks=len(lines))
    done = rows.map(
        _Hand,  # type: ignore[arg-type]  # a class is made in each process
        fn_constructor_args=(made,), num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=AHEAD),
    )  # fmt: skip
    for row in done.iter_rows():
        yield row["line"]
