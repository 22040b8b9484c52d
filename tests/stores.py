"""Stores as earlier treerings made them, and the repository they were made of.

Run as a program it makes ``cases/stores/*.sql`` again, by the code of the repository's own history:

    PYTHONPATH=src:tests python tests/stores.py
"""

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from repositories import Repo

STORES = Path(__file__).parent / "cases" / "stores"
REVISIONS = ("cf9019f", "fa89cc8", "8bdf2a2", "60d02ee", "8794c85", "d328ed9", "a4d9a5a", "c5d1383")
"""The commits after which another schema was in use, oldest first."""


def small(path: Path) -> Repo:
    """A repository of six commits, with the same names wherever it is made."""
    repo = Repo(path)
    repo.commit("Start the market", market__py="def settle(order):\n    return order\n")
    repo.commit("Raise the retry limit to five", retry__py="RETRY_LIMIT = 5\n")
    repo.git("switch", "--quiet", "-c", "bridge")
    repo.commit("cli local changes", bridge__py="class GatewayBridge:\n    pass\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("Write down disputes (see #12)", docs_0_disputes__md="# How a dispute is settled\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge bridge\n\nIt brings the gateway.", "bridge")
    repo.commit("Drop the retries", retry__py=None)
    return repo


def restored(dump: Path, folder: Path) -> Path:
    """A store from its dump."""
    folder.mkdir(parents=True)
    path = folder / "treering.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(dump.read_text("utf-8"))
    return path


def _dumped(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        lines = list(db.iterdump())
        made = db.execute("SELECT sql FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL%'").fetchall()
    # A dump keeps the full-text index of the first versions as the tables behind it, which cannot be read back; its
    # content is dropped by an upgrade, so it is told empty.
    lines = [line for line in lines if not re.search(r"words_|INSERT INTO \"words\"|sqlite_master|writable_", line)]
    lines[1:1] = [f"{sql};" for (sql,) in made]
    return "\n".join([*lines, f"PRAGMA user_version={version};", ""])


def main() -> None:
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="treering-stores-") as temporary:
        folder = Path(temporary)
        repo = small(folder / "market")
        for revision in REVISIONS:
            code, store = folder / revision, folder / f"store-{revision}"
            code.mkdir()
            packed = subprocess.run(["git", "-C", root, "archive", revision, "src"], capture_output=True, check=True)
            subprocess.run(["tar", "-x", "-C", code], input=packed.stdout, check=True)
            # The first ones had another embedding model; where it is not installed they end after the words.
            subprocess.run(
                [sys.executable, "-P", "-m", "treering", "index", "--repo", repo.path, "--store", store],
                env=os.environ | {"PYTHONPATH": str(code / "src")}, check=False,
            )  # fmt: skip
            with closing(sqlite3.connect(store / "treering.db")) as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
            (STORES / f"{version}-{revision}.sql").write_text(_dumped(store / "treering.db"), "utf-8")


if __name__ == "__main__":
    main()
