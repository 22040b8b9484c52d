"""What the watcher decides, without a repository."""

import asyncio
import sys
import time
from functools import partial

import pytest

from treering import config
from treering.operate import beside
from treering.operate.beside import NEEDED, Following, ran
from treering.operate.hooks import parsed, with_lines
from treering.watching import delay, due

LINE = b"(set -C; : >'/a store/queue/asked') 2>/dev/null || :\n"


def test_a_failure_is_tried_again_ever_more_rarely_up_to_a_limit() -> None:
    assert [delay(failures, 300) for failures in (1, 2, 3, 8, 9, 10_000)] == [2, 4, 8, 256, 300, 300]


def test_a_burst_is_waited_for_but_not_without_end() -> None:
    assert due(first=10, last=10, quiet=0.3, longest=5) == 10.3
    assert due(first=10, last=14.9, quiet=0.3, longest=5) == 15


def test_what_follows_is_not_started_twice_at_once_and_once_more_after_its_end() -> None:
    begun: list[int] = []
    failed: list[Exception] = []

    async def follow(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0.01)
        if number == 1:
            raise ValueError("it does not work")

    async def story() -> None:
        following = Following(failed.append)
        for number in (1, 2, 3):
            following.start(partial(follow, number))
            await asyncio.sleep(0)
        await following.over()
        following.start(partial(follow, 4))
        await asyncio.sleep(0)
        await following.end()

    asyncio.run(story())
    assert begun == [1, 3, 4]
    assert [str(error) for error in failed] == ["it does not work"]


def test_a_command_beside_gets_the_keys_that_it_needs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.KEYS:
        monkeypatch.setenv(name, "secret")
    told, _ = asyncio.run(ran([sys.executable, "-c", "import os; print(*os.environ)"], 0))
    assert set(config.KEYS) & set(told.decode().split()) == set(NEEDED)


def test_a_command_beside_that_is_deaf_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "PATIENCE", 0.1)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ran([sys.executable, "-c", deaf], 0), 1.0)

    began = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "first",
    ["#!/bin/sh", "#! /bin/sh -e", "#!/usr/bin/env bash", "#!/usr/bin/bash -eu", "#!/bin/dash", "#!/usr/bin/env zsh"],
)
def test_lines_go_behind_the_first_of_a_shell_script(first: str) -> None:
    script = f"{first}\necho\n".encode()
    made = with_lines(script, [LINE])
    assert made
    assert made.splitlines()[0].decode() == first
    assert parsed(made) == ([LINE], script)


@pytest.mark.parametrize(
    "content",
    ["", "echo\n", "#!/bin/sh", "#!/bin/sh\r\n", "#!/usr/bin/env python3\n", "#!/bin/csh\n", "#!/usr/bin/fish\n",
     "#!/usr/bin/env -S bash -e\n", "\x7fELF", "#!/bin/busybox sh\n", "#!/usr/bin/perl -w\n# bash\n"],
)  # fmt: skip
def test_what_is_no_shell_script_for_sure_gets_none(content: str) -> None:
    assert with_lines(content.encode(), [LINE]) is None


def test_torn_lines_of_ours_are_not_ours_to_take() -> None:
    made = with_lines(b"#!/bin/sh\necho mine\n", [LINE])
    assert made
    for torn in (made.replace(b"# <<< treering hooks\n", b""), made.replace(b"|| :\n", b"|| exit\n")):
        assert parsed(torn) == ([], torn)
        again = with_lines(torn, [LINE])
        assert again
        assert parsed(again) == ([LINE], torn)
