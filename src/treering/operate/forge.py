"""What a forge is asked for, whichever it is: a change, its comments, what was discussed. And where a forge is.

A back end is a :class:`Forge`, and a line in :data:`FORGES`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol, get_args
from urllib.parse import urlsplit

from msgspec import Struct

from treering.config import ForgeSettings
from treering.errors import UsageError
from treering.git.mirror import remote

Kind = Literal["github", "gitlab"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PUBLIC: dict[str, tuple[Kind, str]] = {
    "github.com": ("github", "https://api.github.com"),
    "gitlab.com": ("gitlab", "https://gitlab.com/api/v4"),
}
CI_API: dict[Kind, str] = {"github": "GITHUB_API_URL", "gitlab": "CI_API_V4_URL"}
TOKENS: dict[Kind, str] = {"github": "GITHUB_TOKEN", "gitlab": "GITLAB_TOKEN"}
"""Where a forge's own token is."""
_NAME = re.compile(r"[\w.-]{1,100}(?:/[\w.-]{1,100}){1,20}")
_PULL = re.compile(r"refs/pull/([1-9]\d{0,8})/")


class ChangedFile(Struct, frozen=True):
    """A file that a request changes; ``old_path`` where it was renamed."""

    path: str
    old_path: str = ""
    added: int = 0
    removed: int = 0


class Change(Struct, frozen=True):
    """A pull or merge request. ``authors`` are the names and addresses of who wrote its commits, in lower case;
    ``commits`` their hashes; ``base`` is the commit of the branch that it goes to.
    """

    number: int
    title: str
    body: str
    author: str
    authors: frozenset[str]
    commits: frozenset[str]
    base: str
    files: tuple[ChangedFile, ...]
    url: str


class Comment(Struct, frozen=True):
    """A comment on a request; ``bot`` is whether a program's account wrote it."""

    id: int
    body: str
    author: str
    bot: bool
    url: str = ""


class Thread(Struct, frozen=True):
    """The text of a request or an issue. ``commits`` are what it was merged or squashed as, where the forge says it."""

    kind: Literal["request", "issue"]
    number: int
    title: str
    body: str
    author: str
    state: str
    created: str
    updated: str
    url: str
    commits: tuple[str, ...] = ()


def told(thread: Thread) -> str:
    """A thread as one text."""
    what = "request" if thread.kind == "request" else "issue"
    head = f"{what} {thread.number} ({thread.state}, {thread.author}, {thread.created[:10]}): {thread.title}"
    return f"{head}\n{thread.body.strip()}".strip()


class Forge(Protocol):
    """One repository at a forge. All raise :class:`ServiceError`."""

    def change(self, number: int) -> Change: ...

    def me(self) -> str:
        """The account of the token; empty where the forge does not tell it."""

    def comments(self, number: int) -> Iterator[Comment]:
        """Oldest first."""

    def create(self, number: int, body: str) -> Comment: ...

    def update(self, number: int, comment: int, body: str) -> Comment: ...

    def delete(self, number: int, comment: int) -> None:
        """Whether it was there or not."""

    def threads(self, since: str) -> Iterator[list[Thread]]:
        """Pages of what was updated at a time or later, each no older than the one before it; the time as the forge
        writes it, empty for the beginning. Kinds may come one after the other.
        """

    def handle(self, commit: str) -> str:
        """The account of a commit's author; empty where it is not known."""

    def commit_url(self, commit: str) -> str: ...

    def repositories(self) -> Iterator[str]:
        """Where those of an account are fetched from: the address names the account, not one of them."""


class Address(Struct, frozen=True):
    """Where a repository is: its forge, that one's API, the host of its pages, and its full name there."""

    kind: Kind
    api: str
    host: str
    name: str


def address(settings: ForgeSettings, environment: Mapping[str, str], origin: str) -> Address:
    """Where a repository's forge is: what was set, else what CI says, else the ``origin`` that its own config names.
    That is believed for the two public forges only, since it decides who gets the token.

    Raises :class:`UsageError`.
    """
    by_origin = _remote(origin)
    ci: Kind | None = (
        "github" if environment.get("GITHUB_ACTIONS") == "true"
        else "gitlab" if environment.get("GITLAB_CI") == "true" else None
    )  # fmt: skip
    kind, api = settings.kind or None, settings.api
    if not api and ci and kind in (None, ci):
        kind, api = ci, environment.get(CI_API[ci], "")
    if not api and by_origin and by_origin[0] in PUBLIC and kind in (None, PUBLIC[by_origin[0]][0]):
        kind, api = PUBLIC[by_origin[0]]
    if not api and kind:
        api = _public(kind)
    if not api:
        raise UsageError("the forge of this repository is not known", "set TREERING_FORGE_API (and _REPOSITORY)")
    name = settings.repository or _of_ci(environment, ci) or (by_origin[1] if by_origin else "")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no full name of a repository"
            if name
            else "which repository at the forge it is, is not known",
            "give --repository OWNER/NAME, or set TREERING_FORGE_REPOSITORY",
        )
    return _at(kind, api, name)


def account(kind: Kind, name: str, settings: ForgeSettings) -> Address:
    """Where an organisation, a group or a person is, at the forge that was set, or at the public one."""
    return _at(kind, settings.api or _public(kind), name)


def _public(kind: Kind) -> str:
    return next(url for of, url in PUBLIC.values() if of == kind)


def _at(kind: Kind | None, api: str, name: str) -> Address:
    parts = urlsplit(api)
    host = (parts.hostname or "").lower()
    shown = "github.com" if host == "api.github.com" else parts.netloc.lower()
    return Address(kind or _kind(host, parts.path), api, shown, name)


def hosts(settings: ForgeSettings) -> dict[str, Kind]:
    """The hosts of the repositories that our token is for, with what each is."""
    if not settings.api:
        return {host: kind for host, (kind, _) in PUBLIC.items() if settings.kind in ("", kind)}
    parts = urlsplit(settings.api)
    host = (parts.hostname or "").lower()
    return {"github.com" if host == "api.github.com" else host: settings.kind or _kind(host, parts.path)}


def _kind(host: str, path: str) -> Kind:
    if host == "api.github.com" or path.rstrip("/").endswith("/api/v3"):
        return "github"
    if path.rstrip("/").endswith("/api/v4"):
        return "gitlab"
    raise UsageError(f"whether {host} is a GitHub or a GitLab is not known", "set TREERING_FORGE_KIND")


def _of_ci(environment: Mapping[str, str], ci: Kind | None) -> str:
    if ci == "github":
        return environment.get("GITHUB_REPOSITORY", "")
    if ci == "gitlab":
        return environment.get("CI_MERGE_REQUEST_PROJECT_PATH", "") or environment.get("CI_PROJECT_PATH", "")
    return ""


def _remote(origin: str) -> tuple[str, str] | None:
    """Host and full name by the address of a remote."""
    try:
        found = remote(origin) if origin else None
    except UsageError:
        return None
    return (found.host, found.path.removesuffix(".git").strip("/")) if found and found.host else None


def token_of(kind: Kind, settings: ForgeSettings, environment: Mapping[str, str]) -> str:
    """The token for a forge; empty where there is none. Where the settings do not say whose theirs is, its own name
    comes first: of two forges each gets its own.
    """
    own = environment.get(TOKENS[kind], "").strip()
    return settings.token or own if settings.kind or settings.api else own or settings.token


def number_of(environment: Mapping[str, str]) -> int:
    """The request that CI runs for; 0 where it runs for none."""
    if (iid := environment.get("CI_MERGE_REQUEST_IID", "")).isdigit():
        return int(iid)
    if found := _PULL.match(environment.get("GITHUB_REF", "")):
        return int(found[1])
    if path := environment.get("GITHUB_EVENT_PATH", ""):  # pull_request_target runs on the branch
        try:
            said = json.loads(Path(path).read_text("utf-8"))
            number = said["pull_request"]["number"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return number if isinstance(number, int) else 0
    return 0


Opening = Callable[..., AbstractContextManager[Forge]]


def opened(
    where: Address, token: str, settings: ForgeSettings, pause: Callable[[float], object]
) -> AbstractContextManager[Forge]:
    """The forge at an address, open for questions."""
    from treering.operate.github import GitHub
    from treering.operate.gitlab import GitLab

    forges: dict[Kind, Opening] = {"github": GitHub, "gitlab": GitLab}
    return forges[where.kind](where, token, patience=settings.patience, pause=pause)
