"""Runs programs: their output is kept quiet while they succeed and shown when they fail."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

SHOWN_OUTPUT: Final = 6000  # characters of a failed program's output: enough for a stack trace, short enough to read


class CommandError(RuntimeError):
    """A program failed; the message holds its command line and the end of its output."""


class TimeoutExpiredError(RuntimeError):
    """A condition did not come true in time; the message names it."""


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Run a program to its end and return its standard output. Raises CommandError; `env` adds to the environment."""
    result = subprocess.run(
        [str(word) for word in argv],
        env=environment(env),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        raise CommandError(failure(argv, result.returncode, result.stdout + result.stderr))
    return result.stdout


def succeeds(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> bool:
    """Whether a program is there and exits with 0."""
    try:
        run(argv, env=env)
    except (CommandError, OSError):
        return False
    return True


def pipe(source: Sequence[str | Path], sink: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
    """Run `source | sink`. Raises CommandError if either fails."""
    with subprocess.Popen([str(word) for word in source], env=environment(env), stdout=subprocess.PIPE) as producer:
        consumer = subprocess.run(
            [str(word) for word in sink],
            env=environment(env),
            stdin=producer.stdout,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if consumer.returncode != 0:
        raise CommandError(failure(sink, consumer.returncode, consumer.stdout + consumer.stderr))
    if producer.returncode != 0:
        raise CommandError(failure(source, producer.returncode, ""))


def environment(additions: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment and what is added to it."""
    return {**os.environ, **(additions or {})}


def failure(argv: Sequence[str | Path], code: int, output: str) -> str:
    """The message of a CommandError."""
    return f"exit code {code}: {shlex.join(str(word) for word in argv)}\n{output[-SHOWN_OUTPUT:]}".rstrip()


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float, interval: float = 0.1) -> None:
    """Poll until the condition holds. Raises TimeoutExpiredError naming `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutExpiredError(f"not after {seconds:.0f} s: {what}")
        time.sleep(interval)


def say(text: str) -> None:
    """Tell the person at the terminal; standard output stays free for results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Tell how long a part took, also when it failed."""
    started = time.monotonic()
    say(f"... {name}")
    try:
        yield
    finally:
        say(f"    {name}: {time.monotonic() - started:.1f} s")
