"""The tables of the store, as numbered migrations, and what the database's errors mean to a user."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treering.errors import DiskFull, StoreBusy, StoreError

MIGRATIONS = (
    """
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE refs (
        name TEXT NOT NULL, tip TEXT NOT NULL, rank INTEGER NOT NULL, PRIMARY KEY (name, tip)
    ) WITHOUT ROWID;
    CREATE TABLE paths (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
    CREATE TABLE commits (
        id INTEGER PRIMARY KEY,
        hash TEXT NOT NULL UNIQUE,
        parents TEXT NOT NULL,
        author_name TEXT NOT NULL, author_email TEXT NOT NULL,
        author_time INTEGER NOT NULL, author_offset INTEGER NOT NULL,
        committer_name TEXT NOT NULL, committer_email TEXT NOT NULL,
        committer_time INTEGER NOT NULL, committer_offset INTEGER NOT NULL,
        subject TEXT NOT NULL, body TEXT NOT NULL,
        diff_complete INTEGER NOT NULL, unreadable TEXT NOT NULL, flags TEXT NOT NULL,
        -- where the refs put it now; no fact of the commit
        position INTEGER, branch TEXT, branches TEXT
    );
    CREATE INDEX commits_position ON commits (position);
    CREATE TABLE changes (
        commit_id INTEGER NOT NULL REFERENCES commits (id),
        number INTEGER NOT NULL,
        status TEXT NOT NULL,
        path_id INTEGER NOT NULL REFERENCES paths (id),
        old_path_id INTEGER REFERENCES paths (id),
        insertions INTEGER NOT NULL, deletions INTEGER NOT NULL,
        binary INTEGER NOT NULL, submodule INTEGER NOT NULL,
        PRIMARY KEY (commit_id, number)
    ) WITHOUT ROWID;
    CREATE INDEX changes_path ON changes (path_id);
    CREATE TABLE documents (
        commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
        features BLOB NOT NULL,
        diff_text TEXT -- NULL until the words are indexed, which needs every commit's features first
    );
    CREATE VIRTUAL TABLE words USING fts5 (
        message, paths, functions, identifiers, content='', tokenize="unicode61 remove_diacritics 2 tokenchars '_'"
    );
    CREATE TABLE vectors (
        fingerprint TEXT NOT NULL, row INTEGER NOT NULL,
        commit_id INTEGER NOT NULL REFERENCES commits (id), kind TEXT NOT NULL,
        PRIMARY KEY (fingerprint, row), UNIQUE (fingerprint, commit_id, kind)
    ) WITHOUT ROWID;
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, started REAL NOT NULL, seconds REAL NOT NULL, summary TEXT NOT NULL
    );
    """,
    """
    -- the merge that brought it in: no fact of the commit
    ALTER TABLE commits ADD COLUMN merged_by TEXT;
    ALTER TABLE commits ADD COLUMN refers TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE commits ADD COLUMN redacted TEXT NOT NULL DEFAULT '{}';
    -- by which rules its texts were read
    ALTER TABLE commits ADD COLUMN reading TEXT NOT NULL DEFAULT '';
    -- texts of merges that brought commits and are not chosen themselves
    CREATE TABLE merge_messages (hash TEXT PRIMARY KEY, message TEXT NOT NULL) WITHOUT ROWID;
    DROP TABLE refs;
    CREATE TABLE refs (
        name TEXT NOT NULL, tip TEXT NOT NULL, rank INTEGER NOT NULL, PRIMARY KEY (name, tip, rank)
    ) WITHOUT ROWID;
    -- NULL or empty until the hunks are read
    ALTER TABLE commits ADD COLUMN patch_id TEXT;
    ALTER TABLE commits ADD COLUMN reverse_id TEXT;
    CREATE INDEX commits_patch ON commits (patch_id) WHERE patch_id != '';
    CREATE INDEX commits_reverse ON commits (reverse_id) WHERE reverse_id != '';
    -- empty until it is told
    ALTER TABLE paths ADD COLUMN kind TEXT NOT NULL DEFAULT '';
    ALTER TABLE documents ADD COLUMN left_out TEXT NOT NULL DEFAULT '{}';
    DELETE FROM vectors;
    DELETE FROM documents;
    INSERT INTO words (words) VALUES ('delete-all');
    """,
    """
    CREATE INDEX commits_redacted ON commits (position) WHERE redacted != '{}';
    CREATE INDEX commits_weak ON commits (hash) WHERE NOT diff_complete OR flags != '';
    CREATE INDEX commits_merged ON commits (merged_by) WHERE merged_by IS NOT NULL AND position IS NOT NULL;
    DROP TABLE refs; -- a fact is enough: all that is asked is whether they moved
    """,
    """
    DROP TABLE words;
    DROP TABLE documents;
    DROP TABLE vectors;
    CREATE TABLE documents (
        commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
        features BLOB NOT NULL,
        hunks BLOB NOT NULL, -- those that are indexed, compressed
        left_out TEXT NOT NULL,
        kinds TEXT NOT NULL, -- of texts that become vectors, as JSON
        lengths BLOB -- how many words each field has; NULL until they are indexed
    );
    CREATE INDEX documents_waiting ON documents (commit_id) WHERE lengths IS NULL;
    -- who holds a word: records of (commit id, field, how often), in a blob for each batch of commits
    CREATE TABLE postings (
        word TEXT NOT NULL, first INTEGER NOT NULL, holders BLOB NOT NULL, PRIMARY KEY (word, first)
    ) WITHOUT ROWID;
    CREATE TABLE vectors (
        fingerprint TEXT NOT NULL, row INTEGER NOT NULL,
        commit_id INTEGER NOT NULL REFERENCES commits (id), kind TEXT NOT NULL, part INTEGER NOT NULL,
        PRIMARY KEY (fingerprint, row), UNIQUE (fingerprint, commit_id, kind, part)
    ) WITHOUT ROWID;
    DELETE FROM facts WHERE key = 'index';
    """,
)


REBUILD = "delete the folder: the next run rebuilds it"


def meant(error: sqlite3.DatabaseError, path: Path, rebuild: str = REBUILD) -> StoreError:
    """What an error of the database means, with the way out; ``rebuild`` is the one from damage."""
    if not isinstance(error, sqlite3.OperationalError):
        return StoreError(f"{path} is damaged: {error}", rebuild)
    if "full" in str(error):
        return DiskFull(f"the disk is full: {path} took no more", "free some space and run it again")
    if "locked" in str(error):
        return StoreBusy(f"{path} is locked by another program", "wait for it, then run it again")
    return StoreError(f"{path}: {error}", f"check its permissions; or {rebuild}")


@contextmanager
def sqlite_errors(path: Path, rebuild: str = REBUILD) -> Iterator[None]:
    """Every error of the database inside the block, as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise meant(error, path, rebuild) from error
