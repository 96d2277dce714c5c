"""A program of the user's, run for them: it has their terminal, is told what they tell us, and its exit code is ours.

Codes as shells and container tools have them: 125 Coppice could not do its part, 126 the program cannot be run, 127 it
is not there, 128+n a signal ended it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

NO_DATA: Final = 125
NOT_RUNNABLE: Final = 126
NOT_FOUND: Final = 127
BY_SIGNAL: Final = 128

TOLD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask us to end."""


class Interruptions:
    """What is done when somebody tells us to end.

    While a program runs it is told, and ends as it sees fit; before, the waiting ends; afterwards there is nothing but
    to clean up, which is not given up for it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._program: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[object] | None = None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take signals until the block ends, but for those that whoever started us had us ignore (nohup)."""
        loop = asyncio.get_running_loop()
        heeded = [number for number in TOLD if signal.getsignal(number) is not signal.SIG_IGN]
        for number in heeded:
            loop.add_signal_handler(number, self._take, number)
        try:
            yield
        finally:
            for number in heeded:
                loop.remove_signal_handler(number)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Let a signal cancel the task that the block runs in, be it one that came before."""
        if self.received is not None:
            raise asyncio.CancelledError
        self._waiting = asyncio.current_task()
        try:
            yield
        finally:
            self._waiting = None

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a program to its end and return its exit code, with our standard streams."""
        try:
            program = await asyncio.create_subprocess_exec(*command, env=dict(environment))
        except FileNotFoundError:
            return NOT_FOUND
        except OSError:
            return NOT_RUNNABLE
        self._program = program
        try:
            code = await program.wait()
        finally:
            self._program = None
        return BY_SIGNAL - code if code < 0 else code

    def _take(self, number: int) -> None:
        self.received = self.received or number
        if self._program is not None:
            self._tell(self._program, number)
        elif self._waiting is not None:
            self._waiting.cancel()

    @staticmethod
    def _tell(program: asyncio.subprocess.Process, number: int) -> None:
        # What is typed into a terminal goes to everybody in its foreground, to the program as well. Told twice, some
        # give up their own cleaning up.
        if number == signal.SIGINT and _has_terminal():
            return
        with suppress(ProcessLookupError):
            program.send_signal(number)


def _has_terminal() -> bool:
    """Return whether we, and so the program, are in the foreground of a terminal."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def problem_with(program: str, path: str | None) -> int:
    """Return the exit code for a program that cannot be run, found out before anything is made for it; 0 if it can."""
    if shutil.which(program, path=path) is not None:
        return 0
    return NOT_RUNNABLE if os.path.sep in program and os.path.exists(program) else NOT_FOUND  # noqa: PTH110 - a word
