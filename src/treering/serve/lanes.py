"""Threads before a bounded queue. What nobody waits for any more is taken out of it."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from treering.errors import ServiceError

T = TypeVar("T")
W = TypeVar("W", bound="Working")

CLOSING_SECONDS = 10.0


class Busy(ServiceError):  # noqa: N818
    """Everyone who answers has work and the queue is full: come back in ``seconds``."""

    def __init__(self, seconds: int = 1) -> None:
        super().__init__("too many questions are waiting", f"ask again in {seconds} s")
        self.seconds = seconds


class Working(Protocol):
    """What one thread works with."""

    def close(self) -> None:
        """The thread ends."""


class Nothing:
    """A thread that needs nothing."""

    def close(self) -> None:
        pass


@dataclass(eq=False, slots=True)
class Task(Generic[W, T]):
    """Something to do on a thread, and whoever waits for it in an event loop. ``left`` once nobody does."""

    work: Callable[[W, "Task[W, T]"], T]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[T]"
    left: bool = False

    def settle(self, value: T | None, error: BaseException | None) -> None:
        def tell() -> None:
            if not self.done.done():
                if error is not None:
                    self.done.set_exception(error)
                else:
                    self.done.set_result(value)  # type: ignore[arg-type]  # there is a value where there is no error

        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(tell)


class Lane(Generic[W]):
    """Threads before one bounded queue, each with what ``hired`` makes for it."""

    def __init__(self, name: str, threads: int, waiting: int, hired: Callable[[], W]) -> None:
        self._hired, self._most = hired, waiting
        self._queue: deque[Task[W, Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.busy = 0
        self._threads = [
            threading.Thread(target=self._serve, name=f"treering-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._queue)

    async def run(self, work: Callable[[W, Task[W, T]], T]) -> T:
        """Have something done, in turn. Raises :class:`Busy`. Who is cancelled leaves the queue."""
        loop = asyncio.get_running_loop()
        task = Task(work, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise ServiceError("the server is shutting down", "ask again when it is back")
            if len(self._queue) >= self._most:
                raise Busy
            self._queue.append(task)
            self._changed.notify()
        try:
            value: T = await task.done
            return value
        finally:
            task.left = True
            if not task.done.done() or task.done.cancelled():
                with self._changed, suppress(ValueError):
                    self._queue.remove(task)

    def _serve(self) -> None:
        hired = self._hired()
        while (task := self._next()) is not None:
            try:
                task.settle(task.work(hired, task), None)
            except Exception as error:  # noqa: BLE001  one of many independent questions: whoever asked is told
                task.settle(None, error)
            finally:
                with self._changed:
                    self.busy -= 1
        hired.close()

    def _next(self) -> Task[W, Any] | None:
        with self._changed:
            while True:
                while self._queue:
                    task = self._queue.popleft()
                    if not task.left:
                        self.busy += 1
                        return task
                if self._closed:
                    return None
                self._changed.wait()

    def close(self) -> None:
        """What is waiting is still done; nothing new is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + CLOSING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
