"""What happens meanwhile: kubectl in the background, which misses nothing that comes and goes between two looks."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from e2e.suite.kube import OPERATOR, OPERATOR_PODS
from e2e.waiting import PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from e2e.suite.kube import Kube

ENDING_SECONDS = 10.0
"""For the log of a Pod that is gone: kubelet sends its last lines and ends it."""


@contextmanager
def watching(
    kube: Kube, file: Path, kind: str, *words: str, fields: Sequence[str]
) -> Iterator[Callable[[], list[tuple[str, ...]]]]:
    """Watch objects; yields what returns their states up to now, each as these fields of it, empty where there is
    none.
    """
    with file.open("w", encoding="utf-8") as output:
        process = kube.start("get", kind, *words, "--watch", _format(fields), output=output)
    try:
        yield lambda: [tuple(line.split(",")) for line in file.read_text(encoding="utf-8").splitlines()]
    finally:
        _end(process)


@dataclass(slots=True)
class OperatorLog:
    """The log of every Pod that the operator has had in this session, the dead ones too, in one file."""

    kube: Kube
    file: Path
    restarts: Counter[str] = field(default_factory=Counter)
    """How often a container was started again since the Pod was first seen, by Pod."""
    _since: str = ""
    _followers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _first: dict[str, int] = field(default_factory=dict)
    _watch: subprocess.Popen[str] | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def follow(self) -> Iterator[OperatorLog]:
        """Follow all Pods that are there, and all that come."""
        self._since = f"--since-time={self.kube.time()}"
        self.file.touch()
        thread = threading.Thread(target=self._see_all)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            # More than once: the thread may just have begun another watch.
            while thread.is_alive():
                if self._watch is not None:
                    self._watch.terminate()
                thread.join(PAUSE_SECONDS)
            self._end_followers()

    def size(self) -> int:
        """Return where the next line will be."""
        return self.file.stat().st_size

    def after(self, position: int) -> list[str]:
        """Return the lines from a position on."""
        return self.file.read_bytes()[position:].decode(errors="replace").splitlines()

    def _see_all(self) -> None:
        # The API server ends every watch some day.
        while not self._ended.wait(PAUSE_SECONDS):
            fields = (".metadata.name", ".status.phase", ".status.containerStatuses[0].restartCount")
            command = ("get", "pods", *OPERATOR_PODS, "--watch", _format(fields))
            with self.kube.start(*command, output=subprocess.PIPE) as self._watch:
                for line in self._watch.stdout or ():
                    name, phase, restarts = line.rstrip("\n").split(",")
                    count = int(restarts or 0)
                    self.restarts[name] = count - self._first.setdefault(name, count)
                    if phase == "Running" and name not in self._followers:
                        self._followers[name] = self._follow(name)

    def _follow(self, name: str) -> subprocess.Popen[str]:
        with self.file.open("a", encoding="utf-8") as output:
            return self.kube.start("logs", *OPERATOR, name, "--follow", self._since, output=output)

    def _end_followers(self) -> None:
        alive = self.kube.run("get", "pods", *OPERATOR_PODS, "-o", "name").split()
        for name, process in self._followers.items():
            if f"pod/{name}" not in alive:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=ENDING_SECONDS)
            _end(process)


def _format(fields: Sequence[str]) -> str:
    return "-o=jsonpath={}{{'\\n'}}".format(",".join(f"{{{path}}}" for path in fields))


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
