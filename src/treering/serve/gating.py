"""The gate over HTTP: a patch is posted, the command that the settings name is run, the verdict is the answer. Never a
command of whoever asks, and never without a sandbox.
"""

import time
from collections.abc import Collection
from typing import Annotated, Self

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from treering import gating
from treering.config import ServeSettings
from treering.errors import UsageError
from treering.serve.answers import Refused, answered, body, decoded, while_there
from treering.serve.house import House
from treering.serve.lanes import Busy, Lane, Nothing, Task

AT_ONCE = 2
WAITING = 16
MARGIN = 0.1
"""Which part of the time that an answer may take is left for all but the tests."""
LEAST = 1.0
"""Seconds of tests that are worth beginning."""


class GateAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A patch as `git diff` writes it, and what becomes of it if the tests pass."""

    patch: Annotated[str, Meta(min_length=1, description="What `git diff` or `git format-patch` writes.")]
    repository: Annotated[str, Meta(max_length=1000, description="As in the query; the first one by default.")] = ""
    message: Annotated[str, Meta(max_length=20_000, description="The commit's message.")] = ""
    ref: Annotated[str, Meta(max_length=500, description="The branch to commit to; a new one by default.")] = ""


class Gates:
    """Threads of their own, so that tests of minutes stand before no search. ``mirrors`` are served by these names. Use
    ``with``.
    """

    def __init__(self, settings: ServeSettings, mirrors: Collection[str] = ()) -> None:
        self._seconds, self._mirrors = settings.seconds, mirrors

    def __enter__(self) -> Self:
        self.lane = Lane("gate", AT_ONCE, WAITING, Nothing)
        return self

    def __exit__(self, *_: object) -> None:
        self.lane.close()

    async def gate(self, house: House, request: Request) -> Response:
        until = time.monotonic() + self._seconds * (1 - MARGIN)
        asked = decoded(await body(request), GateAsked)
        named = {*request.query_params.getlist("repository"), asked.repository} - {""}
        if len(named) > 1:
            raise UsageError("`repository`: it is not one name", f"repositories: {', '.join(house.names)}")
        name = house.name(*named)
        where = house.places[name]
        if asked.ref and name in self._mirrors:
            raise Refused(
                409, "mirror", f"the branches of {name} are the forge's, and the next fetch would undo a commit",
                "leave out `ref`: a branch of ours, treering/gate-..., is kept",
            )  # fmt: skip
        if not gating.command_of(where):
            raise Refused(
                409, "no_command", "no test command is set for this repository",
                "set `command` in [gate] of its treering.toml, or TREERING_GATE_COMMAND, and start the server again",
            )  # fmt: skip
        patch = asked.patch.encode("utf-8", "replace")

        def work(_: Nothing, task: Task[Nothing, gating.Verdict]) -> gating.Verdict:
            if time.monotonic() + LEAST > until:
                raise Busy
            return gating.gate(
                where, patch, ref=asked.ref, message=asked.message, until=until, wanted=lambda: not task.left
            )

        verdict: gating.Verdict = await while_there(request, self.lane.run(work))
        return answered(verdict)
