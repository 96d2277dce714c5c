"""A git repository that people push to, and that Argo CD reads over git's own protocol."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.harness import shell
from e2e.suite.processes import free_ports, process

if TYPE_CHECKING:
    from collections.abc import Iterator

AUTHOR = {
    **{f"GIT_{who}_NAME": "Ann" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ann@example.com" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository and a checkout of it."""

    url: str
    checkout: Path

    def push(self, branch: str, message: str) -> str:
        """Commit the checkout as it is and push it to a branch; return the commit."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", f"--message={message}")
        self._git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        return self._git("rev-parse", "HEAD").strip()

    def reset(self) -> None:
        """Have the checkout as the main branch was pushed last."""
        self._git("reset", "--quiet", "--hard", "origin/main")
        self._git("clean", "--quiet", "--force", "-d")

    def _git(self, *words: str) -> str:
        return shell.run(["git", *words], env=AUTHOR, cwd=self.checkout)


@contextmanager
def serving(folder: Path, address: str) -> Iterator[Repository]:
    """Make an empty repository in a folder and serve it at an address of this machine."""
    served, checkout = folder / "served", folder / "checkout"
    bare = served / "shop.git"
    shell.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", bare], env=AUTHOR)
    shell.run(["git", "clone", "--quiet", bare, checkout], env=AUTHOR)
    [port] = free_ports(1)
    program = Path(shell.run(["git", "--exec-path"]).strip(), "git-daemon")
    words = (f"--listen={address}", f"--port={port}", f"--base-path={served}", "--export-all", "--reuseaddr")
    with process("git-daemon", [program, *words], folder):
        yield Repository(f"git://{address}:{port}/shop.git", checkout)
