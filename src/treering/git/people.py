"""Names and addresses unified by the ``.mailmap`` of the newest commit, read as data by git's own rules."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from treering.git.shadow import GitFailed, Shadow, Watchdog

Person = tuple[str, str]


class Mailmap:
    """Asks one long-lived ``git check-mailmap``; every person is asked for once."""

    def __init__(self, shadow: Shadow, blob: str) -> None:
        self.blob = blob
        self._process = shadow.start("-c", f"mailmap.blob={blob}", "check-mailmap", "--stdin")
        self._watchdog = Watchdog(self._process)
        self._known: dict[Person, Person] = {}

    def __call__(self, name: str, email: str) -> Person:
        """Whom the mailmap says this is; as given where it says nothing."""
        person = name, email
        if person not in self._known:
            self._known[person] = self._ask(name, email)
        return self._known[person]

    def _ask(self, name: str, email: str) -> Person:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018  (for mypy: they are pipes)
        if not email or set(name + email) & set("<>\n\0"):
            return name, email  # nothing a mailmap could name
        with suppress(OSError), self._watchdog:
            stdin.write(f"{name} <{email}>\n".encode())
            stdin.flush()
            said = stdout.readline().decode("utf-8", "replace").removesuffix("\n")
            shown, _, address = said.rpartition("<")
            if said.endswith(">"):
                return shown.strip(), address.removesuffix(">")
        return name, email

    def close(self) -> None:
        self._watchdog.stop()
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()


@contextmanager
def mailmap(shadow: Shadow, tip: str) -> Iterator[Mailmap | None]:
    """The mailmap of a commit, or None where it has none or no commit is given."""
    if not tip:
        yield None
        return
    try:
        listed = shadow.run("ls-tree", "-z", tip, "--", ".mailmap").decode("utf-8", "replace")
        mode, kind, blob = listed.partition("\t")[0].split(" ") if listed else ("", "", "")
    except GitFailed:  # the tree is missing
        mode = kind = blob = ""
    if kind != "blob" or mode == "120000":  # a link is no mailmap
        yield None
        return
    people = Mailmap(shadow, blob)
    try:
        yield people
    finally:
        people.close()
