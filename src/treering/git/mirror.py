"""Bare mirrors of ours: made, and brought to what another machine has. The only module that has git speak with one.

A mirror holds the branches and tags of one repository. It is fetched from the address that was configured, by that
address and not by a remote's name, so that nothing which came with the repository has a say in it.
"""

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from treering.config import LOOPBACK
from treering.errors import RepositoryError, ServiceError, UsageError
from treering.files import locked, os_errors
from treering.git.shadow import REF_SECONDS, GitFailed, run_git, talk_git

FETCH_SECONDS = 600.0
PATIENCE = 600.0
"""How long another fetch of the same mirror is waited for."""
_SPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "^refs/heads/treering/*")
"""What a remote has, but for the branches that we make ourselves: those stay as they are here."""
_SSH = re.compile(r"(?:[\w.-]+@)?([\w.-]+):(?!/)([\w./~-]+)")
_HEAD = re.compile(rb"^ref: (refs/heads/[^\t\n]+)\tHEAD$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a mirror is fetched from. Check it with :func:`remote`."""

    url: str
    protocol: str
    host: str
    path: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """How many refs came, moved and went; and which of the commits that were asked for are not there."""

    new: int
    moved: int
    gone: int
    missing: tuple[str, ...]


def remote(url: str) -> Remote:
    """An address that may be fetched from: https, ssh, or a file; http within this machine only.

    Raises :class:`UsageError`, which never repeats a password.
    """
    if "://" not in url and (named := _SSH.fullmatch(url)):
        return Remote(url, "ssh", named[1].lower(), named[2])
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        raise UsageError("an address to fetch from is no URL", "write it as https://host/owner/name.git") from None
    if parts.password is not None or (parts.username and parts.scheme in ("http", "https")):
        raise UsageError(f"the address at {host} holds a password or token", "give it by the environment instead")
    if parts.query or parts.fragment:
        raise UsageError(f"the address at {host} has more than a path", "leave out what begins with ? or #")
    local = parts.scheme == "http" and host in LOOPBACK
    if not (parts.scheme in ("https", "ssh") and host) and not local and not (parts.scheme == "file" and parts.path):
        raise UsageError(f"{parts.scheme or 'that'} is no way to fetch from", "use https, ssh, or file:///path")
    return Remote(url, parts.scheme, host, parts.path.strip("/"))


def make(mirror: Path, source: Remote) -> None:
    """Make an empty mirror where there is none. Its config names where it is from; nothing is fetched by that name."""
    if (mirror / "HEAD").is_file():
        return
    with os_errors(mirror):
        mirror.mkdir(parents=True, exist_ok=True)
    try:
        run_git(["init", "--quiet", "--bare", "--template=", str(mirror)], seconds=REF_SECONDS)
        run_git([f"--git-dir={mirror}", "config", "remote.origin.url", source.url], seconds=REF_SECONDS)
    except GitFailed as error:
        raise RepositoryError(f"git cannot make a mirror in {mirror}: {error}", "choose another place") from error


def tips(mirror: Path) -> dict[str, str]:
    """The refs of a mirror and where they are."""
    told = run_git([f"--git-dir={mirror}", "for-each-ref", "--format=%(objectname) %(refname)"], seconds=REF_SECONDS)
    lines = (line.partition(" ") for line in told.decode("utf-8", "replace").splitlines())
    return {name: tip for tip, _, name in lines}


def fetch(
    mirror: Path,
    source: Remote,
    *,
    user: str = "",
    token: str = "",
    wanted: Iterable[str] = (),
    unwanted: Callable[[], bool] = lambda: False,
) -> Fetched:
    """Bring a mirror to what its remote has: moved branches by force, deleted ones gone. Run again after a kill it does
    the same. ``token`` is sent to that host alone, over https (or within this machine), by the environment of git.

    Raises :class:`ServiceError` that names the host and never the token.
    """
    with locked(mirror / "treering.lock", "a fetch", patience=PATIENCE):
        before = tips(mirror)
        try:
            _talk(mirror, source, user, token, unwanted)
        except GitFailed as error:
            raise _said(source, token, error) from None
        after = tips(mirror)
    names = "".join(f"{one}\n" for one in dict.fromkeys(wanted)).encode()
    asked = run_git([f"--git-dir={mirror}", "cat-file", "--batch-check"], stdin=names, seconds=REF_SECONDS)
    missing = (line.removesuffix(" missing") for line in asked.decode().splitlines() if line.endswith(" missing"))
    return Fetched(
        new=len(after.keys() - before.keys()),
        moved=sum(before[name] != after[name] for name in before.keys() & after.keys()),
        gone=len(before.keys() - after.keys()),
        missing=tuple(missing),
    )


def _talk(mirror: Path, source: Remote, user: str, token: str, unwanted: Callable[[], bool]) -> None:
    config = {
        "http.followRedirects": "false", "http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60",
        "gc.autoDetach": "false", "maintenance.autoDetach": "false", "fetch.recurseSubmodules": "no",
        "credential.helper": "",
    }  # fmt: skip
    if token and source.protocol in ("http", "https"):
        parts = urlsplit(source.url)
        basic = base64.b64encode(f"{user}:{token}".encode()).decode()
        config[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: Basic {basic}"

    def talk(*arguments: str) -> bytes:
        return talk_git(
            [f"--git-dir={mirror}", *arguments], protocol=source.protocol, config=config, seconds=FETCH_SECONDS,
            unwanted=unwanted,
        )  # fmt: skip

    talk("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--force", "--", source.url, *_SPECS)
    if _has_head(mirror):
        return
    named = _HEAD.search(talk("ls-remote", "--symref", "--", source.url, "HEAD"))
    if named:  # the first time, or its default branch was renamed
        run_git([f"--git-dir={mirror}", "symbolic-ref", "HEAD", named[1].decode("utf-8", "surrogateescape")])


def _has_head(mirror: Path) -> bool:
    try:
        run_git([f"--git-dir={mirror}", "cat-file", "-e", "HEAD"], seconds=REF_SECONDS)
    except GitFailed:
        return False
    return True


def _said(source: Remote, token: str, error: GitFailed) -> ServiceError:
    """What git said, without what it must not say."""
    told = str(error)
    for secret in (token, base64.b64encode(token.encode()).decode()) if token else ():
        told = told.replace(secret, "…")
    where = source.host or "the repository's folder"
    if re.search(r"\b(401|403|Authentication failed|could not read Username|Permission denied)", told):
        return ServiceError(f"{where} refuses the fetch: {told}", "look at the token, and at what it may read")
    return ServiceError(f"the fetch from {where} failed: {told}", "look at the network and at the address")
