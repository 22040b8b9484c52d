"""The log of runs as lines of JSON, for whoever collects them: appended, turned over by its size, nothing left out."""

import json
import os
import time
from pathlib import Path

from treering.files import locked, os_errors
from treering.store import Ran, Store

LINE = 64 * 1024
"""How long a line may be: then its details are left out."""
FACT = "journal"


def keep_up(store: Store, path: Path, most: int) -> int:
    """Append what ran since the last line of this store, and return how many lines that made. Killed between a line and
    the note of it, the line comes again: ``repo`` and ``run`` name it.
    """
    last = int(store.fact(FACT) or 0)
    if store.newest_run() <= last:
        return 0
    path = path.expanduser()
    repo, made = store.fact("repo") or "", 0
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), "treering's log", patience=10.0):
        for run in store.runs(after=int(store.fact(FACT) or 0)):
            line = _line(repo, run)
            with os_errors(path):
                if path.exists() and path.stat().st_size + len(line) > most:
                    path.replace(path.with_name(f"{path.name}.1"))
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    os.write(file, line)
                finally:
                    os.close(file)
            store.set_fact(FACT, str(run.number))
            made += 1
    return made


def _line(repo: str, run: Ran) -> bytes:
    """A run; its single cases are for the store."""
    head = {
        "repo": repo,
        "run": run.number,
        "stage": run.stage,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seconds": round(run.seconds, 3),
    }
    told = {name: value for name, value in run.told.items() if name not in (*head, "cases", "left_out")}
    line = json.dumps(head | told).encode()
    return (line if len(line) < LINE else json.dumps(head).encode()) + b"\n"
