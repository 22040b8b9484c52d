"""The operations with GitHub and GitLab: mirrors kept current by webhooks, the comment on a change, what was discussed.

Above ``deciding.py``. Tokens come from the environment and go to the forge alone.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs
from msgspec import Struct

from treering import finding
from treering.config import ForgeSettings
from treering.errors import UsageError
from treering.git import mirror as mirroring
from treering.git.blame import tree
from treering.git.mirror import Fetched as Fetched
from treering.git.mirror import Remote
from treering.git.shadow import GitFailed
from treering.opening import Place
from treering.operate import webhooks
from treering.operate.comment import Posted as Posted
from treering.operate.comment import markdown, post
from treering.operate.forge import KINDS, Address, Change, Kind, account, address, hosts, number_of, opened, token_of
from treering.operate.inbox import Figures as Figures
from treering.operate.inbox import Inbox as Inbox
from treering.operate.inbox import Waiting as Waiting
from treering.operate.review import Review as Review
from treering.operate.review import review
from treering.operate.threads import Threads
from treering.operate.webhooks import COMMENTED as COMMENTED
from treering.operate.webhooks import Delivery as Delivery
from treering.operate.webhooks import Forge as Forge
from treering.operate.webhooks import Unverified as Unverified
from treering.operate.webhooks import signed as signed
from treering.report import Reporter
from treering.text.secrets import Redactor

ASKED = 1500
"""Characters of a change's text that are searched for."""
CANDIDATES = 20
USERS: dict[Kind, str] = {"github": "x-access-token", "gitlab": "oauth2"}

Pause = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A repository whose webhooks are taken: its full name, where it is fetched from, and the folder it is in."""

    name: str
    remote: Remote
    folder: Path


class Commented(Struct, frozen=True):
    """A comment: the text, what it was made of, and what became of it; ``posted`` is None where none was to be."""

    repository: str
    number: int
    body: str
    review: Review
    posted: Posted | None


class Pulled(Struct, frozen=True):
    """What a fetch of requests and issues brought, and what there is now."""

    changed: int
    requests: int
    issues: int
    since: str


# mirrors and webhooks -------------------------------------------------------------------------------------------------


def mirrors(settings: ForgeSettings) -> dict[str, Mirror]:
    """The repositories whose webhooks are taken, by their full names in lower case; a mirror that is not there is made,
    empty.

    Raises :class:`UsageError` for an entry that cannot be, or a secret that could be guessed.
    """
    webhooks.check_secrets(settings.secrets)
    if settings.repositories and not settings.secrets:
        raise UsageError("`forge.repositories` names some, and no secret is set", "set TREERING_FORGE_SECRETS")
    found: dict[str, Mirror] = {}
    for entry in settings.repositories:
        name, _, url = entry.partition("=")
        if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+", name) or not url or {".", ".."} & set(name.split("/")):
            raise UsageError(
                f"an entry of `forge.repositories` ({name[:100]!r}) is no OWNER/NAME=URL", "docs/forge.md shows one"
            )
        if name.lower() in found:
            raise UsageError(f"`forge.repositories` names {name} twice", "name it once")
        where = mirroring.remote(url)
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        folder = Path(platformdirs.user_data_dir("treering")) / "mirrors" / digest / f"{name.rpartition('/')[2]}.git"
        mirroring.make(folder, where)
        found[name.lower()] = Mirror(name, where, folder)
    return found


def verified(forge: Forge, headers: Mapping[str, str], body: bytes, settings: ForgeSettings, now: float) -> Delivery:
    """A delivery by somebody who knows a secret. Raises :class:`Unverified`, or :class:`DataError` for what is none."""
    webhooks.verify(forge, headers, body, settings.secrets, now=now, tolerance=settings.replay_seconds)
    return webhooks.read(forge, headers, body)


def fetch(
    mirror: Mirror, settings: ForgeSettings, wanted: Sequence[str] = (), unwanted: Callable[[], bool] = lambda: False
) -> Fetched:
    """Bring a mirror to what the forge has. ``wanted`` are commits that should be there then."""
    user, token = _git_token(mirror.remote.host, settings)
    return mirroring.fetch(mirror.folder, mirror.remote, user=user, token=token, wanted=wanted, unwanted=unwanted)


def _git_token(host: str, settings: ForgeSettings) -> tuple[str, str]:
    """Who fetches from a host, with which token: only from one that the token is for."""
    kind = hosts(settings).get(host)
    return (USERS[kind], token_of(kind, settings, os.environ)) if kind else ("", "")


def organisation(named: str, settings: ForgeSettings, pause: Pause = time.sleep) -> list[str]:
    """The addresses of all repositories of ``github:NAME`` or ``gitlab:GROUP``, that the token may see."""
    prefix, _, name = named.partition(":")
    kind = next((one for one in KINDS if one == prefix), None)
    if not kind or not name:
        raise UsageError(f"{named!r} is no organisation", "write it as github:NAME or gitlab:GROUP")
    at = account(kind, name, settings)
    with opened(at, token_of(at.kind, settings, os.environ), settings, pause) as forge:
        return list(forge.repositories())


# the comment ----------------------------------------------------------------------------------------------------------


def where_at(where: Place, repository: str = "") -> Address:
    """Where a repository's forge is. Raises :class:`UsageError` where that is not known."""
    settings = where.settings.forge
    if repository:
        settings = replace(settings, repository=repository)
    return address(settings, os.environ, where.source.origin())


def request_of(number: int) -> int:
    """A request's number: what is given, else CI's. Raises :class:`UsageError`."""
    found = number or number_of(os.environ)
    if not found:
        raise UsageError("which pull or merge request it is, is not known", "give its number")
    return found


def comment(
    where: Place,
    report: Reporter,
    number: int,
    *,
    repository: str = "",
    dry: bool = False,
    pause: Pause = time.sleep,
) -> Commented:
    """Tell on a pull or merge request what the history says of it, in one comment that is updated; ``dry``, only make
    the text.
    """
    at, settings = where_at(where, repository), where.settings.forge
    token = token_of(at.kind, settings, os.environ)
    if not token and not dry:
        raise UsageError(
            "there is no token to comment with", "set TREERING_FORGE_TOKEN, or give --dry-run to see the comment"
        )
    with opened(at, token, settings, pause) as forge:
        change = forge.change(number)
        with finding.desk(where, report) as desk:
            told = _reviewed(desk, change, forge.handle if token else lambda _: "")
        body = markdown(told, forge.commit_url)
        posted = None if dry else post(forge, number, body, in_actions=os.environ.get("GITHUB_ACTIONS") == "true")
    return Commented(at.name, number, body, told, posted)


def _reviewed(desk: finding.Desk, change: Change, handle: Callable[[str], str]) -> Review:
    """What the history before a change says of it: what the base of the change reaches, where it is indexed."""
    history = desk.finder.history
    base = change.base if change.base in history.number else desk.tip
    asked = finding.text_of(f"{change.title}\n{change.body[:ASKED]}".strip())
    found = desk.search(asked, limit=CANDIDATES, at=base) if asked else []
    try:
        there = tree(desk.shadow, base)
    except GitFailed:  # its trees are missing: the files that were ever changed must do
        there = desk.predictor.touches.names
    return review(
        desk.finder, desk.predictor.touches, history.at(base), change, found=found, there=there, handle=handle
    )


# what was discussed ---------------------------------------------------------------------------------------------------


def pull(where: Place, report: Reporter, *, repository: str = "", pause: Pause = time.sleep) -> Pulled:
    """Fetch the texts of requests and issues that were updated since the last time into the store, without secrets."""
    at, settings = where_at(where, repository), where.settings.forge
    redact = Redactor(where.settings.scrape.allow_secrets)
    source = f"{at.api}/{at.name}"
    with opened(at, token_of(at.kind, settings, os.environ), settings, pause) as forge, Threads(where.folder) as kept:
        since, changed, newest = kept.come(source), 0, ""
        for page in forge.threads(since):
            changed += kept.keep(page, redact)
            newest = max((newest, *(one.updated for one in page)))
            report.detail(f"{at.name}: {changed:,} requests and issues so far")
        if newest:
            kept.reached(source, max(since, newest))
        return Pulled(changed, *kept.count(), since=since)
