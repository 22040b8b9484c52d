"""GitHub and GitLab over loopback for tests: the endpoints that are used, with their state, pages, limits and refusals.

What they answer has the fields of the published schemas that anybody reads, and some that nobody here does. A request
that no endpoint knows, or whose body is not what it should be, is a failure of the test.
"""

import itertools
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "acme/shop"
TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
Answer = tuple[int, Any, dict[str, str]]


@dataclass
class Fault:
    """What is answered instead, once: a status with its headers; 0 closes the connection. ``done`` is whether the
    request was done all the same. ``on`` is a method that it waits for.
    """

    status: int
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    on: str = ""


class FakeForge:
    """One repository at a forge of one kind, with its requests (pull or merge), issues and comments."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.url = ""
        self.me: str | None = "treering-bot"
        self.requests: dict[int, dict[str, Any]] = {}
        self.issues: dict[int, dict[str, Any]] = {}
        self.comments: list[dict[str, Any]] = []
        self.logins: dict[str, str] = {}
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, str]] = []
        self.waited: list[float] = []
        self.wrong: list[str] = []
        self.tokens: set[str] = set()
        self.page = 100
        self.owned: list[str] = []
        """The addresses of the organisation's repositories; the first one is ada's, too."""
        self.before_create: Callable[[], object] = lambda: None
        self._numbers = itertools.count(1001)
        self._lock = threading.Lock()

    @property
    def api(self) -> str:
        return f"{self.url}/api/v3" if self.kind == "github" else f"{self.url}/api/v4"

    def pause(self, seconds: float) -> None:
        """Takes the place of sleeping."""
        self.waited.append(seconds)

    def add_request(
        self, number: int, *, title: str, files: list[tuple[str, int, int]], body: str = "", author: str = "grace",
        base: str = "", commits: list[tuple[str, str, str]] | None = None, merged_as: str = "",
        updated: str = "2026-01-02T00:00:00Z",
    ) -> None:  # fmt: skip
        """Files are (path, added, removed), commits (hash, author's name, address)."""
        self.requests[number] = {
            "number": number, "title": title, "files": files, "body": body, "author": author, "base": base,
            "commits": commits or [], "merged_as": merged_as, "updated": updated,
        }  # fmt: skip

    def add_issue(self, number: int, title: str, body: str = "", updated: str = "2026-01-01T00:00:00Z") -> None:
        self.issues[number] = {"number": number, "title": title, "body": body, "updated": updated}

    def add_comment(self, number: int, body: str, author: str, *, bot: bool = False) -> dict[str, Any]:
        made = {"id": next(self._numbers), "of": number, "body": body, "author": author, "bot": bot}
        self.comments.append(made)
        return made

    # answering -------------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: Any, content: bytes) -> Answer | None:
        parts = urlsplit(target)
        path, query = parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self._lock:
            self.asked.append((method, target))
            fault = self.faults[0] if self.faults and self.faults[0].on in ("", method) else None
            if fault:
                self.faults.popleft()
        token = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("private-token", "")
        self.tokens.add(token)
        if fault and not fault.done:
            return (fault.status, {"message": fault.message}, fault.headers) if fault.status else None
        if token not in ("", TOKEN):
            return 401, {"message": "Bad credentials"}, {}
        body = json.loads(content) if content else None
        if method == "POST":
            self.before_create()
        with self._lock:
            told = self._told(method, path, query, body, token)
        if fault:
            return (fault.status, {"message": fault.message}, fault.headers) if fault.status else None
        status, value, extra = told
        if isinstance(value, list):
            return self._paged(value, target, query, extra)
        return status, value, extra

    def _paged(self, value: list[Any], target: str, query: dict[str, str], extra: dict[str, str]) -> Answer:
        number, size = int(query.get("page", 1)), min(self.page, int(query.get("per_page", 30)))
        if number * size < len(value):
            base = target.partition("?")[0]
            # The real host has other names than the one that is asked, behind a proxy.
            rest = "&".join(f"{name}={one}" for name, one in query.items() if name != "page")
            extra = {"link": f'<https://elsewhere.example{base}?{rest}&page={number + 1}>; rel="next"'}
        return 200, value[(number - 1) * size : number * size], extra

    def _told(self, method: str, path: str, query: dict[str, str], body: Any, token: str) -> Answer:
        routes = self._github() if self.kind == "github" else self._gitlab()
        for wanted, pattern, handle in routes:
            if method == wanted and (found := re.fullmatch(pattern, path)):
                if method != "GET" and not token:
                    return 401, {"message": "Requires authentication"}, {}
                if method in ("POST", "PATCH", "PUT") and not (
                    isinstance(body, dict) and isinstance(body["body"], str)
                ):
                    self.wrong.append(f"{method} {path}: {body!r}")
                    return 422, {"message": "Validation Failed"}, {}
                return handle(*(int(one) if one.isdigit() else one for one in found.groups()), query=query, body=body)
        if found := re.fullmatch(r"/api/v[34]/(orgs|groups|users)/(\w+)/(repos|projects)", path):
            return self._owned(*found.groups())
        if not re.match(self._root(), path):
            return 404, {"message": "Not Found"}, {}
        self.wrong.append(f"{method} {path}")
        return 404, {"message": "Not Found"}, {}

    def _root(self) -> str:
        return f"/api/v3/repos/{NAME}/" if self.kind == "github" else "/api/v4/projects/acme%2Fshop/"

    def _owned(self, what: str, owner: str, _: str) -> Answer:
        mine = {"acme": ("orgs", "groups"), "ada": ("users",)}.get(owner, ())
        key = "clone_url" if self.kind == "github" else "http_url_to_repo"
        owned = self.owned if owner == "acme" else self.owned[:1]
        return (
            (200, [{"id": 1, key: one} for one in owned], {}) if what in mine else (404, {"message": "Not Found"}, {})
        )

    def _one(self, number: int, told: Callable[[dict[str, Any]], Any]) -> Answer:
        if number not in self.requests:
            return 404, {"message": "Not Found"}, {}
        return 200, told(self.requests[number]), {}

    def _user(self, **_: Any) -> Answer:
        if self.me is None:
            return 403, {"message": "Resource not accessible by integration"}, {}
        return 200, self._person(self.me), {}

    def _listed(self, number: int, **_: Any) -> Answer:
        return 200, [self._comment(one) for one in self.comments if one["of"] == number], {}

    def _created(self, number: int, *, body: Any, **_: Any) -> Answer:
        made = self.add_comment(number, body["body"], self.me or "github-actions[bot]", bot=self.me is None)
        return 201, self._comment(made), {}

    def _changed(self, *numbers: int, body: Any, **_: Any) -> Answer:
        for one in self.comments:
            if one["id"] == numbers[-1]:
                if one["author"] != (self.me or "github-actions[bot]"):
                    return 403, {"message": "Must have admin rights"}, {}
                one["body"] = body["body"]
                return 200, self._comment(one), {}
        return 404, {"message": "Not Found"}, {}

    def _removed(self, *numbers: int, **_: Any) -> Answer:
        before = len(self.comments)
        self.comments = [one for one in self.comments if one["id"] != numbers[-1]]
        return (204, None, {}) if len(self.comments) < before else (404, {"message": "Not Found"}, {})

    def _person(self, name: str, *, bot: bool = False) -> dict[str, Any]:
        if self.kind == "github":
            return {"login": name, "id": 1, "node_id": "x", "type": "Bot" if bot else "User", "site_admin": False}
        return {"username": name, "id": 1, "name": name.title(), "state": "active", "bot": bot}

    def _comment(self, one: dict[str, Any]) -> dict[str, Any]:
        person = self._person(one["author"], bot=one["bot"])
        told = {"id": one["id"], "body": one["body"], "created_at": "2026-01-01T00:00:00Z"}
        if self.kind == "github":
            url = f"https://github.example/{NAME}/pull/{one['of']}#issuecomment-{one['id']}"
            return told | {"user": person, "html_url": url, "author_association": "NONE"}
        return told | {"author": person, "system": False, "noteable_type": "MergeRequest"}

    # GitHub ----------------------------------------------------------------------------------------------------------

    def _github(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        repo = f"/api/v3/repos/{NAME}"
        return [
            ("GET", "/api/v3/user", self._user),
            ("GET", rf"{repo}/pulls/(\d+)", lambda number, **_: self._one(number, self._pull)),
            ("GET", rf"{repo}/pulls/(\d+)/files", lambda number, **_: self._one(number, self._pull_files)),
            ("GET", rf"{repo}/pulls/(\d+)/commits", lambda number, **_: self._one(number, self._pull_commits)),
            ("GET", f"{repo}/pulls", self._pulls),
            ("GET", f"{repo}/issues", self._github_issues),
            ("GET", rf"{repo}/issues/(\d+)/comments", self._listed),
            ("POST", rf"{repo}/issues/(\d+)/comments", self._created),
            ("PATCH", rf"{repo}/issues/comments/(\d+)", self._changed),
            ("DELETE", rf"{repo}/issues/comments/(\d+)", self._removed),
            ("GET", rf"{repo}/commits/([0-9a-f]{{40}})", self._commit),
        ]

    def _pull(self, one: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": 5, "number": one["number"], "state": "closed" if one["merged_as"] else "open", "title": one["title"],
            "body": one["body"] or None, "user": self._person(one["author"]), "labels": [], "draft": False,
            "html_url": f"https://github.example/{NAME}/pull/{one['number']}", "updated_at": one["updated"],
            "created_at": one["updated"], "merged_at": one["updated"] if one["merged_as"] else None,
            "merge_commit_sha": one["merged_as"] or "f" * 40, "head": {"sha": "e" * 40, "ref": "topic"},
            "base": {"sha": one["base"] or "d" * 40, "ref": "main", "repo": {"full_name": NAME}},
        }  # fmt: skip

    @staticmethod
    def _pull_files(one: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"sha": "a" * 40, "filename": path, "status": "modified", "additions": added, "deletions": removed,
             "changes": added + removed, "blob_url": "", "raw_url": "", "contents_url": ""}
            for path, added, removed in one["files"]
        ]  # fmt: skip

    @staticmethod
    def _pull_commits(one: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"sha": name, "author": None, "parents": [],
             "commit": {"author": {"name": person, "email": mail, "date": "2026-01-01T00:00:00Z"}, "message": "x"}}
            for name, person, mail in one["commits"]
        ]  # fmt: skip

    def _pulls(self, *, query: dict[str, str], **_: Any) -> Answer:
        closed = [one for one in self.requests.values() if one["merged_as"]]
        assert query["state"] == "closed"
        assert (query["sort"], query["direction"]) == ("updated", "desc")
        return 200, [self._pull(one) for one in sorted(closed, key=lambda one: one["updated"], reverse=True)], {}

    def _github_issues(self, *, query: dict[str, str], **_: Any) -> Answer:
        told = [
            {"id": 7, "number": one["number"], "title": one["title"], "state": "open", "body": one["body"] or None,
             "user": self._person(one.get("author", "ada")), "created_at": one["updated"], "updated_at": one["updated"],
             "html_url": f"https://github.example/{NAME}/issues/{one['number']}", "comments": 0,
             **({"pull_request": {"url": "x", "merged_at": None}} if one["number"] in self.requests else {})}
            for one in (*self.requests.values(), *self.issues.values())
            if one["updated"] >= query.get("since", "")
        ]  # fmt: skip
        return 200, sorted(told, key=lambda one: one["updated_at"]), {}

    def _commit(self, name: str, **_: Any) -> Answer:
        login = self.logins.get(name)
        return 200, {"sha": name, "commit": {"message": "x"}, "author": self._person(login) if login else None}, {}

    # GitLab ----------------------------------------------------------------------------------------------------------

    def _gitlab(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        project = "/api/v4/projects/acme%2Fshop"
        of = f"{project}/merge_requests"
        return [
            ("GET", "/api/v4/user", self._user),
            ("GET", rf"{of}/(\d+)", lambda number, **_: self._one(number, self._merge_request)),
            ("GET", rf"{of}/(\d+)/diffs", lambda number, **_: self._one(number, self._diffs)),
            ("GET", rf"{of}/(\d+)/commits", lambda number, **_: self._one(number, self._gitlab_commits)),
            ("GET", rf"{of}/(\d+)/notes", self._listed),
            ("POST", rf"{of}/(\d+)/notes", self._created),
            ("PUT", rf"{of}/(\d+)/notes/(\d+)", self._changed),
            ("DELETE", rf"{of}/(\d+)/notes/(\d+)", self._removed),
            ("GET", of, self._merge_requests),
            ("GET", f"{project}/issues", self._gitlab_issues),
        ]

    def _merge_request(self, one: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": 5, "iid": one["number"], "title": one["title"], "description": one["body"] or None,
            "state": "merged" if one["merged_as"] else "opened", "author": self._person(one["author"]),
            "created_at": one["updated"], "updated_at": one["updated"], "sha": "e" * 40, "labels": [],
            "web_url": f"https://gitlab.example/{NAME}/-/merge_requests/{one['number']}", "squash_commit_sha": None,
            "merge_commit_sha": one["merged_as"] or None,
            "diff_refs": {"base_sha": one["base"] or "d" * 40, "head_sha": "e" * 40, "start_sha": "d" * 40},
        }  # fmt: skip

    @staticmethod
    def _diffs(one: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"old_path": path, "new_path": path, "a_mode": "100644", "b_mode": "100644", "new_file": False,
             "renamed_file": False, "deleted_file": False,
             "diff": "@@ -1 +1 @@\n" + "+x\n" * added + "-x\n" * removed}
            for path, added, removed in one["files"]
        ]  # fmt: skip

    @staticmethod
    def _gitlab_commits(one: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"id": name, "short_id": name[:8], "title": "x", "author_name": person, "author_email": mail}
            for name, person, mail in one["commits"]
        ]

    def _merge_requests(self, *, query: dict[str, str], **_: Any) -> Answer:
        assert (query["order_by"], query["sort"]) == ("updated_at", "asc")
        told = [
            self._merge_request(one)
            for one in self.requests.values()
            if one["updated"] >= query.get("updated_after", "")
        ]
        return 200, sorted(told, key=lambda one: one["updated_at"]), {}

    def _gitlab_issues(self, *, query: dict[str, str], **_: Any) -> Answer:
        told = [
            {"id": 7, "iid": one["number"], "title": one["title"], "description": one["body"] or None,
             "state": "opened", "author": self._person("ada"), "created_at": one["updated"],
             "updated_at": one["updated"], "web_url": f"https://gitlab.example/{NAME}/-/issues/{one['number']}"}
            for one in self.issues.values() if one["updated"] >= query.get("updated_after", "")
        ]  # fmt: skip
        return 200, sorted(told, key=lambda one: one["updated_at"]), {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    forge: FakeForge

    def _do(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        told = self.forge.answer(self.command, self.path, self.headers, content)
        if told is None:
            self.close_connection = True
            return
        status, value, headers = told
        body = b"" if status == 204 else json.dumps(value).encode()
        self.send_response(status)
        for name, one in {"content-type": "application/json", **headers}.items():
            self.send_header(name, one)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _do  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake_forge(kind: str) -> Iterator[FakeForge]:
    forge = FakeForge(kind)
    handler = type("Handler", (_Handler,), {"forge": forge})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        forge.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield forge
        finally:
            server.shutdown()
            thread.join()
    assert not forge.wrong, forge.wrong


def named(target: str) -> str:
    """A request's path without its query, readable."""
    return unquote(urlsplit(target).path)
