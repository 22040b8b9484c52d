"""GitHub's REST API, as far as it is used. What it answers is read tolerantly."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self
from urllib.parse import quote

from msgspec import Struct

from treering.operate.forge import Address, Change, ChangedFile, Comment, Thread
from treering.operate.rest import Api, Missing, Refused

VERSION = "2022-11-28"


class _User(Struct):
    login: str = ""
    type: str = ""


class _Commit(Struct):
    sha: str


class _Person(Struct):
    name: str | None = None
    email: str | None = None


class _Written(Struct):
    author: _Person | None = None


class _CommitOf(Struct):
    sha: str
    commit: _Written
    author: _User | None = None


class _Pull(Struct):
    number: int
    title: str
    base: _Commit
    body: str | None = None
    user: _User | None = None
    html_url: str = ""


class _Closed(Struct):
    number: int
    updated_at: str
    merged_at: str | None = None
    merge_commit_sha: str | None = None


class _File(Struct):
    filename: str
    previous_filename: str | None = None
    additions: int = 0
    deletions: int = 0


class _Comment(Struct):
    id: int
    body: str | None = None
    user: _User | None = None
    html_url: str = ""


class _Issue(Struct):
    number: int
    title: str
    state: str
    created_at: str
    updated_at: str
    body: str | None = None
    user: _User | None = None
    html_url: str = ""
    pull_request: dict[str, object] | None = None


class _Repository(Struct):
    clone_url: str


class GitHub:
    """One repository of GitHub, or of an Enterprise Server. Use ``with``."""

    def __init__(self, where: Address, token: str, *, patience: float, pause: Callable[[float], object]) -> None:
        headers = {"Accept": "application/vnd.github+json, application/json", "X-GitHub-Api-Version": VERSION}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._api = Api(where.api, headers, patience=patience, pause=pause)
        self._where, self._repo = where, f"/repos/{quote(where.name)}"

    def __enter__(self) -> Self:
        self._api.__enter__()
        return self

    def __exit__(self, *told: object) -> None:
        self._api.__exit__(*told)

    def change(self, number: int) -> Change:
        path = f"{self._repo}/pulls/{number}"
        said = self._api.get(path, _Pull)
        files = [one for page in self._api.pages(f"{path}/files", _File) for one in page]
        commits = [one for page in self._api.pages(f"{path}/commits", _CommitOf) for one in page]
        people = [one.commit.author or _Person() for one in commits]
        named = [value for one in people for value in (one.name, one.email)]
        author = _login(said.user)
        return Change(
            number, said.title, said.body or "", author,
            frozenset(one.lower() for one in (*named, *(_login(one.author) for one in commits), author) if one),
            frozenset(one.sha for one in commits), said.base.sha,
            tuple(
                ChangedFile(one.filename, one.previous_filename or "", one.additions, one.deletions) for one in files
            ),
            said.html_url,
        )  # fmt: skip

    def repositories(self) -> Iterator[str]:
        owner = quote(self._where.name, safe="")
        for path in (f"/orgs/{owner}/repos", f"/users/{owner}/repos"):  # a person is no organisation
            with suppress(Missing):
                for page in self._api.pages(path, _Repository, type="all"):
                    yield from (one.clone_url for one in page)
                return
        raise Missing(f"there is no {self._where.name} at {self._where.host}", "look at the name, and at the token")

    def me(self) -> str:
        with suppress(Refused, Missing):  # a token of an app, and that of Actions, is of no user
            return self._api.get("/user", _User).login
        return ""

    def comments(self, number: int) -> Iterator[Comment]:
        for page in self._api.pages(f"{self._repo}/issues/{number}/comments", _Comment):
            yield from map(_comment, page)

    def create(self, number: int, body: str) -> Comment:
        path = f"{self._repo}/issues/{number}/comments"
        return _comment(self._api.send("POST", path, {"body": body}, _Comment))

    def update(self, number: int, comment: int, body: str) -> Comment:  # noqa: ARG002  other forges need the number
        path = f"{self._repo}/issues/comments/{comment}"
        return _comment(self._api.send("PATCH", path, {"body": body}, _Comment))

    def delete(self, number: int, comment: int) -> None:  # noqa: ARG002
        self._api.delete(f"{self._repo}/issues/comments/{comment}")

    def threads(self, since: str) -> Iterator[list[Thread]]:
        newer: dict[str, str | int] = {"since": since} if since else {}
        merged = self._merged(since)
        asked: dict[str, str | int] = {"state": "all", "sort": "updated", "direction": "asc", **newer}
        for page in self._api.pages(f"{self._repo}/issues", _Issue, **asked):
            yield [_thread(one, merged) for one in page]

    def _merged(self, since: str) -> dict[int, str]:
        """What requests were merged as, which the list of issues does not say. The newest come first."""
        found: dict[int, str] = {}
        for page in self._api.pages(f"{self._repo}/pulls", _Closed, state="closed", sort="updated", direction="desc"):
            found |= {one.number: one.merge_commit_sha or "" for one in page if one.merged_at}
            if page and page[-1].updated_at < since:
                break
        return found

    def handle(self, commit: str) -> str:
        with suppress(Missing):
            return _login(self._api.get(f"{self._repo}/commits/{commit}", _CommitOf).author)
        return ""

    def commit_url(self, commit: str) -> str:
        return f"https://{self._where.host}/{self._where.name}/commit/{commit}"


def _comment(said: _Comment) -> Comment:
    user = said.user or _User()
    return Comment(said.id, said.body or "", user.login, user.type == "Bot", said.html_url)


def _thread(said: _Issue, merged: dict[int, str]) -> Thread:
    return Thread(
        "issue" if said.pull_request is None else "request", said.number, said.title, said.body or "",
        _login(said.user), "merged" if said.number in merged else said.state, said.created_at, said.updated_at,
        said.html_url, tuple(filter(None, (merged.get(said.number),))),
    )  # fmt: skip


def _login(user: _User | None) -> str:
    return user.login if user else ""
