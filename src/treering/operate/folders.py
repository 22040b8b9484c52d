"""What a store holds beside its index: the database as SQLite sees it, token streams, models, the ledger, leftovers."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from treering.errors import StoreError, TreeringError
from treering.files import read_json
from treering.lm.export import SUMS, differing
from treering.operate import inbox, threads
from treering.operate.subject import Aside, Seen, Subject
from treering.pipeline.learn import CURRENT, current_model, make_current, models_of, replaced, report_of
from treering.pipeline.tokenize import CARD, Dataset
from treering.store import ledger
from treering.store.database import connect, make_folder, migrate
from treering.store.ledger import Ledger
from treering.store.schema import MIGRATIONS
from treering.tokens.pack import digest_of, read_stream
from treering.types import day_of

DATABASE = "treering.db"
WAYS_OUT = {ledger.FILE: ledger.KEPT, inbox.FILE: inbox.LOST, threads.FILE: threads.LOST}
"""What to do about each other database, where it is damaged."""
SHOWN = 20
UNDER_WAY = 3600
"""So many seconds a file may be written at most: one that is older was left behind."""


def check_database(folder: Path) -> Seen:
    """What SQLite says of the database, and whether its tables are those of this version.

    Raises :class:`StoreError` for one that a newer treering made.
    """
    seen, path = Seen(), folder / DATABASE
    try:
        with closing(connect(path)) as db:
            migrate(db, path, MIGRATIONS)
            _check_sqlite(db, seen)
            wanted = sqlite3.connect(":memory:", isolation_level=None)
            with closing(wanted):
                migrate(wanted, path, MIGRATIONS)
                there, should = _columns(db), _columns(wanted)
            lacking = sorted(should - there)
            if lacking:
                seen.fault("the tables are not those of this version", [".".join(one) for one in lacking])
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            (size,) = db.execute("PRAGMA page_size").fetchone()
            seen.looked_at = f"{len(there):,} columns, {pages * size / 1e6:,.1f} MB, version {len(MIGRATIONS)}"
    except sqlite3.DatabaseError as error:
        seen.fault(f"{DATABASE} cannot be read: {error}")
    return seen


def _check_sqlite(db: sqlite3.Connection, seen: Seen) -> None:
    found = [row[0] for row in db.execute(f"PRAGMA integrity_check({SHOWN})")]
    if found != ["ok"]:
        seen.fault("SQLite finds the file damaged", found)
    orphans = [f"{table} row {row} of {parent}" for table, row, parent, _ in db.execute("PRAGMA foreign_key_check")]
    if orphans:
        seen.fault(f"{len(orphans):,} rows lead nowhere", orphans)


def _columns(db: sqlite3.Connection) -> set[tuple[str, str]]:
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        (table, row[0]) for table in tables for row in db.execute("SELECT name FROM pragma_table_info(?)", (table,))
    }


def reindexed(folder: Path) -> bool:
    """Try to mend a database by making SQLite's own indexes again; whether it is sound then."""
    path = folder / DATABASE
    try:
        with closing(connect(path)) as db:
            db.execute("REINDEX")
            seen = Seen()
            _check_sqlite(db, seen)
    except sqlite3.DatabaseError:
        return False
    return not seen.wrong and not check_database(folder).wrong


def put_aside(folder: Path, aside: Aside) -> None:
    """Take a database out that cannot be mended, with the vectors that only it can name."""
    make_folder(folder)  # without a database only what it ignores says whose it is
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "vectors"):
        if (folder / name).exists():
            aside.take(folder / name)


def check_tokens(on: Subject) -> Seen:
    """Whether each token stream is the one that its header and its card tell of."""
    seen, count = Seen(), 0
    for folder in _folders(on.store.folder / "tokens"):
        if not (folder / CARD).is_file():
            seen.notes.append(f"tokens/{folder.name} is not finished: the next training makes it again")
            continue
        count += 1
        try:
            corpus, ids = read_stream(folder)
            whole = digest_of(corpus, ids) == corpus.sha256 == read_json(folder / CARD, Dataset).sha256
        except TreeringError as error:
            seen.fault(error.message)
            seen.folders.append(folder)
        else:
            if not whole:
                seen.fault(f"tokens/{folder.name} holds other tokens than its header says")
                seen.folders.append(folder)
    seen.looked_at = f"{count:,} token streams"
    return seen


def mend_tokens(on: Subject, seen: Seen) -> list[str]:
    for folder in seen.folders:
        on.aside.take(folder)
    return [f"tokens/{folder.name} was taken out: the next training makes it again" for folder in seen.folders]


def check_models(on: Subject) -> Seen:
    """Whether the files of each model are what they were when it was made, and whether the current one is there."""
    store, seen = on.store, Seen()
    kept = models_of(store)
    size = 0
    for folder in kept:
        try:
            report_of(folder)
            wrong = differing(folder)
        except (TreeringError, OSError) as error:
            wrong = [str(error)]
        if wrong:
            seen.fault(f"the model {folder.name} is damaged", wrong)
            seen.folders.append(folder)
        elif wrong is None:
            seen.notes.append(f"the model {folder.name} was made without {SUMS}: its files cannot be compared")
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for left in sorted({*(store.folder / "models").glob("*/.*.old")} - {*replaced(store.folder / "models")}):
        seen.fault(f"a model stopped half-way between two states: {left.name}")
        seen.folders.append(left)
    pointer = store.folder / "models" / CURRENT
    if pointer.is_file() and current_model(store) is None:
        seen.fault("`current` names a model that is not there", [pointer.read_text("utf-8", "replace").strip()])
    seen.looked_at = f"{len(kept):,} models, {size / 1e6:,.1f} MB"
    return seen


def mend_models(on: Subject, seen: Seen) -> list[str]:
    """Take damaged models out; where the current one is not there, the newest that is whole takes its place."""
    store, said = on.store, []
    for folder in seen.folders:
        if folder.name.endswith(".old"):
            folder.rename(folder.with_name(folder.name.removeprefix(".").removesuffix(".old")))
            said.append(f"{folder.name} was put back")
        else:
            on.aside.take(folder)
            said.append(f"the model {folder.name} was taken out")
    pointer = store.folder / "models" / CURRENT
    if pointer.is_file() and current_model(store) is None:
        kept = [folder for folder in models_of(store) if not differing(folder)]
        if kept:
            make_current(store, kept[0])
            said.append(f"the model {kept[0].name} is the current one now")
        else:
            on.aside.take(pointer)
            said.append("no model is left: `treering train` makes one")
    return said


def check_ledger(on: Subject) -> Seen:
    """Whether the ledger is whole, adds up, and which of its reservations nobody ended. It cannot be made again."""
    seen, folder = Seen(), on.store.folder
    if not (folder / ledger.FILE).is_file():
        seen.looked_at = "none"
        return seen
    try:
        with Ledger(folder, reading=True) as opened:
            _check_sqlite(opened.db, seen)
            rows = opened.db.execute("SELECT id, at, day, worst, spent FROM spending").fetchall()
            days = [number for number, at, day, _, _ in rows if day_of(at) != day]
            if days:
                seen.fault(f"{len(days):,} calls are counted on another day than theirs", days)
            total = sum(row[4] or 0 for row in rows)
            told = sum(account.spent for account in opened.accounts())
            if total != told:
                seen.fault(f"the sums are {told:,} billionths of a dollar, and the calls {total:,}")
            if left := [one.number for one in opened.unsettled(time.time()) if one.left]:
                seen.notes.append(f"{len(left):,} reservations were never ended: they count as spent")
            routes = opened.db.execute("SELECT id, features FROM routes").fetchall()
            torn = [name for name, features in routes if not _is_table(features)]
            if torn:
                seen.fault(f"{len(torn):,} routes cannot be read", torn)
            seen.looked_at = f"{len(rows):,} calls, {len(routes):,} routes"
    except (TreeringError, sqlite3.DatabaseError) as error:
        seen.fault(f"{ledger.FILE} cannot be read: {error}")
    return seen


def _is_table(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, float])
    except msgspec.DecodeError:
        return False
    return True


def mend_ledger(_: Subject, __: Seen) -> list[str]:
    """Nothing: what was spent is not known from anywhere else, and a guess would let a ceiling be passed."""
    return ["the ledger was left as it is: move it away, then restore it from a backup (`treering restore`)"]


def check_forge(on: Subject) -> Seen:
    """What SQLite says of what was discussed at the forge, and of the deliveries that came from there."""
    seen, there = Seen(), []
    for path in (on.store.folder / name for name in (inbox.FILE, threads.FILE)):
        if not path.is_file():
            continue
        there.append(path.name)
        damage = Seen()
        try:
            with closing(connect(path)) as db:
                _check_sqlite(db, damage)
            if path.name == threads.FILE and not damage.wrong:
                with threads.Threads(on.store.folder, reading=True) as kept:
                    if kept.torn:
                        damage.fault(f"{kept.torn:,} texts are found by other words than they hold")
        except (StoreError, sqlite3.DatabaseError) as error:
            damage.fault(f"it cannot be read: {error}")
        if damage.wrong:
            seen.wrong += [f"{path.name}: {wrong}" for wrong in damage.wrong]
            seen.folders.append(path)
    seen.looked_at = ", ".join(there) or "none"
    return seen


def mend_forge(on: Subject, seen: Seen) -> list[str]:
    for path in seen.folders:
        for log in ("", "-wal", "-shm"):
            if (file := path.with_name(f"{path.name}{log}")).exists():
                on.aside.take(file)
    return [f"{path.name} was taken out: what it held is fetched again" for path in seen.folders]


def check_leftovers(on: Subject) -> Seen:
    """What killed runs left. No run minds it."""
    left = list(leftovers(on.store.folder))
    seen = Seen(looked_at=f"{len(left):,} files and folders")
    if left:
        seen.notes.append(f"{len(left):,} leftovers of killed runs: `treering gc` removes them")
    seen.folders = left
    return seen


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files, and folders of models, that nobody renamed. Those of a training under way look the same."""
    for where in (folder, folder / "reports", folder / "models", *_folders(folder / "tokens")):
        if where.is_dir():
            for path in where.glob(".*.????????"):  # as `tempfile` names them
                if path.is_file() and not path.is_symlink() and time.time() - path.stat().st_mtime > UNDER_WAY:
                    yield path
    yield from (path for path in (folder / "models").glob("*/.*.new") if path.is_dir())
    yield from replaced(folder / "models")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
