"""A thread that works on files, so that no disk makes the loop wait: one job after another, results told on the loop.

Leaves to others what the jobs are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar, cast

T = TypeVar("T")


class FileThread:
    """Runs jobs one after another in a thread. A job that raises what its caller does not expect stops the node."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._is_closed = False
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Dropped once closed: the node stops, and what was not committed does not exist."""
        if not self._is_closed:
            self._jobs.put(job)

    def submit_then(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """`done(result)` on the loop, unless closed by then."""

        def run() -> None:
            result = job()
            self._loop.call_soon_threadsafe(lambda: None if self._is_closed else done(result))

        self.submit(run)

    async def run(self, job: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """The job's result, or the OSError that it raised. `undo` gets a result that nobody waits for any more."""
        future: asyncio.Future[T] = self._loop.create_future()

        def try_job() -> tuple[T, None] | tuple[None, OSError]:
            try:
                return job(), None
            except OSError as error:
                return None, error

        def finish(result: tuple[T, None] | tuple[None, OSError]) -> None:
            value, error = result
            if error is not None:
                if not future.done():
                    future.set_exception(error)
            elif not future.done():
                future.set_result(cast(T, value))
            elif undo is not None:
                undo(cast(T, value))

        self.submit_then(try_job, finish)
        return await future

    def close(self) -> None:
        """Finish the jobs queued so far; their callbacks no longer come."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - the loop's exception handler gets it
                context = {"message": f"{self._thread.name} failed", "exception": error}
                self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)
