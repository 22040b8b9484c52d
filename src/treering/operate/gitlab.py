"""GitLab's REST API (version 4), as far as it is used. What it answers is read tolerantly."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self
from urllib.parse import quote

from msgspec import Struct

from treering.operate.forge import Address, Change, ChangedFile, Comment, Thread
from treering.operate.rest import Api, Missing, Refused


class _User(Struct):
    username: str = ""
    name: str = ""
    bot: bool = False


class _Refs(Struct):
    base_sha: str | None = None


class _Request(Struct):
    iid: int
    title: str
    state: str
    created_at: str
    updated_at: str
    description: str | None = None
    author: _User | None = None
    web_url: str = ""
    diff_refs: _Refs | None = None
    merge_commit_sha: str | None = None
    squash_commit_sha: str | None = None


class _Issue(Struct):
    iid: int
    title: str
    state: str
    created_at: str
    updated_at: str
    description: str | None = None
    author: _User | None = None
    web_url: str = ""


class _Commit(Struct):
    id: str
    author_name: str | None = None
    author_email: str | None = None


class _Diff(Struct):
    new_path: str
    old_path: str
    diff: str | None = None


class _Note(Struct):
    id: int
    body: str | None = None
    author: _User | None = None
    system: bool = False


class _Project(Struct):
    http_url_to_repo: str


class GitLab:
    """One project of a GitLab. Use ``with``."""

    def __init__(self, where: Address, token: str, *, patience: float, pause: Callable[[float], object]) -> None:
        headers = {"PRIVATE-TOKEN": token} if token else {}
        self._api = Api(where.api, headers, patience=patience, pause=pause)
        self._where, self._project = where, f"/projects/{quote(where.name, safe='')}"

    def __enter__(self) -> Self:
        self._api.__enter__()
        return self

    def __exit__(self, *told: object) -> None:
        self._api.__exit__(*told)

    def change(self, number: int) -> Change:
        path = f"{self._project}/merge_requests/{number}"
        said = self._api.get(path, _Request)
        files = [_file(one) for page in self._api.pages(f"{path}/diffs", _Diff) for one in page]
        commits = [one for page in self._api.pages(f"{path}/commits", _Commit) for one in page]
        author = said.author or _User()
        named = [value for one in commits for value in (one.author_name, one.author_email)]
        return Change(
            number, said.title, said.description or "", author.username,
            frozenset(one.lower() for one in (*named, author.username, author.name) if one),
            frozenset(one.id for one in commits), (said.diff_refs.base_sha or "") if said.diff_refs else "",
            tuple(files), said.web_url,
        )  # fmt: skip

    def repositories(self) -> Iterator[str]:
        owner = quote(self._where.name, safe="")
        for path, more in (
            (f"/groups/{owner}/projects", {"include_subgroups": "true"}),
            (f"/users/{owner}/projects", {}),
        ):
            with suppress(Missing):
                for page in self._api.pages(path, _Project, simple="true", **more):
                    yield from (one.http_url_to_repo for one in page)
                return
        raise Missing(f"there is no {self._where.name} at {self._where.host}", "look at the name, and at the token")

    def me(self) -> str:
        with suppress(Refused, Missing):
            return self._api.get("/user", _User).username
        return ""

    def comments(self, number: int) -> Iterator[Comment]:
        for page in self._api.pages(self._notes(number), _Note, sort="asc", order_by="created_at"):
            yield from (_comment(one) for one in page if not one.system)

    def _notes(self, number: int) -> str:
        return f"{self._project}/merge_requests/{number}/notes"

    def create(self, number: int, body: str) -> Comment:
        return _comment(self._api.send("POST", self._notes(number), {"body": body}, _Note))

    def update(self, number: int, comment: int, body: str) -> Comment:
        return _comment(self._api.send("PUT", f"{self._notes(number)}/{comment}", {"body": body}, _Note))

    def delete(self, number: int, comment: int) -> None:
        self._api.delete(f"{self._notes(number)}/{comment}")

    def threads(self, since: str) -> Iterator[list[Thread]]:
        newer: dict[str, str | int] = {"updated_after": since} if since else {}
        asked: dict[str, str | int] = {"scope": "all", "order_by": "updated_at", "sort": "asc", **newer}
        for requests in self._api.pages(f"{self._project}/merge_requests", _Request, **asked):
            yield [_request(one) for one in requests]
        for issues in self._api.pages(f"{self._project}/issues", _Issue, **asked):
            yield [_issue(one) for one in issues]

    def handle(self, commit: str) -> str:  # noqa: ARG002
        """GitLab tells no account of a commit."""
        return ""

    def commit_url(self, commit: str) -> str:
        return f"https://{self._where.host}/{self._where.name}/-/commit/{commit}"


def _file(said: _Diff) -> ChangedFile:
    """GitLab counts no lines: its diff is counted, as far as it is not left out for its size."""
    lines = (said.diff or "").split("\n")
    return ChangedFile(
        said.new_path, said.old_path if said.old_path != said.new_path else "",
        sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines),
    )  # fmt: skip


def _comment(said: _Note) -> Comment:
    author = said.author or _User()
    return Comment(said.id, said.body or "", author.username, author.bot)


def _request(said: _Request) -> Thread:
    commits = tuple(one for one in (said.merge_commit_sha, said.squash_commit_sha) if one)
    return Thread(
        "request", said.iid, said.title, said.description or "", said.author.username if said.author else "",
        said.state, said.created_at, said.updated_at, said.web_url, commits,
    )  # fmt: skip


def _issue(said: _Issue) -> Thread:
    return Thread(
        "issue", said.iid, said.title, said.description or "", said.author.username if said.author else "",
        said.state, said.created_at, said.updated_at, said.web_url,
    )  # fmt: skip
