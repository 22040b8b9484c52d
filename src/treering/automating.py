"""The operations that hand work to automations: the workflows for n8n."""

from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from treering.errors import UsageError
from treering.files import write_json
from treering.opening import Place
from treering.operate.n8n import workflows as n8n

PRIVATE = 0o600


class Exported(Struct, frozen=True):
    """A workflow that was written: its file, its id in n8n, and the paths of its webhooks behind ``/webhook/``."""

    file: str
    id: str
    name: str
    webhooks: tuple[str, ...]


class N8nExport(Struct, frozen=True):
    """What was written. ``credentials_written`` is false where the file was there: it may hold secrets by now."""

    workflows: tuple[Exported, ...]
    credentials: str
    credentials_written: bool


def export_n8n(where: Place, folder: Path, *, server: str = "", notify: str = "") -> N8nExport:
    """Write the workflows for n8n of a repository, and an example of the credentials they name. ``server`` is where
    n8n finds `treering serve`; ``notify`` gets what came of each run as JSON by POST, if it is given.

    Raises :class:`UsageError` where an address is none, or holds a password.
    """
    server = (
        _address("--url", server).rstrip("/") if server else f"http://127.0.0.1:{where.settings.serve.port or 8080}"
    )
    notify = _address("--notify", notify) if notify else ""
    name = where.source.name
    written = []
    for kind in n8n.KINDS:
        made = n8n.workflow(kind, name, server, notify)
        path = folder / "workflows" / f"{kind}.json"
        write_json(path, made)
        written.append(Exported(str(path), made["id"], made["name"], n8n.webhooks(made)))
    path = folder / "credentials.example.json"
    new = not path.exists()
    if new:
        write_json(path, n8n.credentials(server))
        path.chmod(PRIVATE)
    return N8nExport(tuple(written), str(path), new)


def _address(flag: str, url: str) -> str:
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise UsageError(f"{flag}: a name or a password has no place in a workflow", "put it into a credential of n8n")
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isprintable() or " " in url:
        raise UsageError(f"{flag}: {url!r} is no address", "give one like http://127.0.0.1:8080")
    return url
