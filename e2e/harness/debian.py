"""Debian's part: packages the machine lacks, and root file systems for images, made from packages alone."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import cachekey, shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from e2e.harness.settings import Settings

# Nobody reads manuals in an image, and each load of it is faster without them. Licences stay.
LEAN: Final = tuple(
    f"--dpkgopt={rule}"
    for rule in (
        *("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/doc/*"),
        "path-include=/usr/share/doc/*/copyright",
    )
)
SUITE: Final = "bookworm"  # systemd 252 and runc 1.1 of bookworm still run on cgroup v1; those of trixie do not
# Programs the machine needs and the packages they come in.
STORAGE_PACKAGES: Final = {"mkfs.btrfs": "btrfs-progs"}
DATABASE_PACKAGES: Final = {"initdb": "postgresql"}
TLS_PACKAGES: Final = {"stunnel4": "stunnel4"}
GITOPS_PACKAGES: Final = {"redis-server": "redis-server"}
CLUSTER_PACKAGES: Final = {
    "dockerd": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
}
POLICY: Final = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True, kw_only=True)
class RootFs:
    """What goes into a root file system; variants are mmdebstrap's ("extract" unpacks without running scripts).

    ``hooks`` are mmdebstrap's too, options that run a command at one of its steps.
    """

    name: str
    packages: tuple[str, ...]
    variant: str = "minbase"
    hooks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in the cache."""
        return f"{self.name}-{cachekey.digest([SUITE, self.variant, *LEAN, *self.hooks, *self.packages])}"


NODE: Final = RootFs(
    name="node",
    packages=(
        *("systemd", "containerd", "runc", "containernetworking-plugins", "iptables", "nftables", "conntrack"),
        *("iproute2", "ethtool", "kmod", "procps", "ca-certificates", "jq", "e2fsprogs", "btrfs-progs"),
    ),
)
KUBE_PROXY: Final = RootFs(name="kube-proxy", packages=("iptables", "nftables", "conntrack"), variant="extract")
PYTHON: Final = RootFs(
    name="python",
    packages=("python3", "python3-pip", "python3-venv", "btrfs-progs", "mount", "ca-certificates"),
)
STUNNEL: Final = RootFs(name="stunnel", packages=("stunnel4",))
DEBIAN: Final = RootFs(name="debian", packages=("ca-certificates",))
# As the official image has it: the user is 999, and there is no database yet.
POSTGRESQL: Final = RootFs(
    name="postgresql",
    packages=("postgresql-15", "libnss-wrapper", "ca-certificates"),
    hooks=(
        "--essential-hook=echo postgres:x:999:999::/var/lib/postgresql:/bin/sh >>$1/etc/passwd",
        "--essential-hook=echo postgres:x:999: >>$1/etc/group",
        "--customize-hook=rm -rf $1/var/lib/postgresql/15 $1/etc/postgresql/15",
    ),
)


def install_host_packages(wanted: Mapping[str, str]) -> None:
    """Install what the machine lacks. Raises CommandError, naming the packages."""
    missing = sorted({package for program, package in wanted.items() if not _in_path(program)})
    if not missing:
        return
    if os.geteuid() != 0:
        raise shell.CommandError(f"these packages are missing, and only root can install them: {' '.join(missing)}")
    with shell.step(f"apt-get install {' '.join(missing)}"), _no_service_starts():
        install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        if not shell.succeeds(install, env=environment):
            shell.run(["apt-get", "update"])
            shell.run(install, env=environment)


def make(rootfs: RootFs, settings: Settings) -> Path:
    """Make what the cache lacks and return the tar archive. Raises CommandError."""
    target = settings.rootfs / f"{rootfs.key}.tar"
    if target.is_file():
        return target
    with shell.step(f"root file system {rootfs.name} (Debian packages)"):
        settings.scratch.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            archive = Path(scratch, "rootfs.tar")
            include = f"--include={','.join(rootfs.packages)}"
            options = ["--quiet", f"--variant={rootfs.variant}", *LEAN, *rootfs.hooks, include]
            shell.run(["mmdebstrap", *options, SUITE, archive])
            archive.rename(target)
    return target


def _in_path(program: str) -> bool:
    # Debian keeps the programs of each version of PostgreSQL out of the PATH.
    versions = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin", *versions]
    return any(Path(folder, program).is_file() for folder in folders if folder)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    # Debian starts a service when its package is installed unless this file forbids it (man 8 invoke-rc.d); an engine
    # on the machine's own network is just what the private one avoids.
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
