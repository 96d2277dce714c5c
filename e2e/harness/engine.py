"""A private Docker engine in a network namespace of its own, for machines that have none.

Nothing it does to addresses, routes or packet filters reaches the machine, and nothing in it reaches the outside. A
pair of virtual Ethernet devices joins the two, so that the cluster's API answers on ADDRESS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import shell

if TYPE_CHECKING:
    from e2e.harness.settings import Settings

NAMESPACE: Final = "coppice-e2e"
HOST_DEVICE: Final = "coppice0"
ENGINE_DEVICE: Final = "coppice1"
HOST_ADDRESS: Final = "10.78.0.1"
ADDRESS: Final = "10.78.0.2"
CGROUP: Final = "coppice-e2e"
CGROUPS: Final = Path("/sys/fs/cgroup")
MODULES: Final = Path("/lib/modules")
CAP_SYS_RESOURCE: Final = 24  # linux/capability.h
CLASSIC_BUILDER: Final = {"DOCKER_BUILDKIT": "0"}  # the only one that Debian's Docker has
RUNC_WRAPPER: Final = Path(__file__).with_name("runc-without-sys-resource")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """`state` holds what lives as long as the engine, `data` its images, which outlive it."""

    state: Path
    data: Path

    @property
    def host(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.state}/docker.sock"

    @property
    def environment(self) -> dict[str, str]:
        """What a docker or kind command needs."""
        return {"DOCKER_HOST": self.host, **CLASSIC_BUILDER}

    def docker(self, *words: str | Path) -> str:
        """Run the docker command on this engine. Raises CommandError."""
        return shell.run(["docker", *words], env=self.environment)

    def answers(self) -> bool:
        """Whether the engine is up."""
        return (self.state / "docker.sock").exists() and shell.succeeds(["docker", "version"], env=self.environment)

    def exists(self) -> bool:
        """Whether any trace of it is on the machine."""
        return self.state.exists() or Path("/run/netns", NAMESPACE).exists()

    def start(self) -> None:
        """Start the engine unless it answers. Raises CommandError or TimeoutExpiredError with the end of its log."""
        if self.answers():
            return
        with shell.step("start a private Docker engine"):
            self.state.mkdir(parents=True, exist_ok=True)
            self.data.mkdir(parents=True, exist_ok=True)
            if not MODULES.exists():
                (self.state / "made-lib-modules").touch()  # Docker makes it for kind's `--volume /lib/modules`
            _make_network()
            process = self._spawn()
            (self.state / "dockerd.pid").write_text(str(process.pid))
            try:
                shell.wait_until(
                    lambda: self.answers() or process.poll() is not None, what="dockerd answers", seconds=60
                )
            except shell.TimeoutExpiredError as error:
                raise shell.CommandError(f"{error}\n{self.log()}") from error
            if process.poll() is not None:
                raise shell.CommandError(f"dockerd ended with {process.returncode}\n{self.log()}")

    def log(self) -> str:
        """The end of the engine's log."""
        log = self.state / "dockerd.log"
        return log.read_text(errors="replace")[-shell.SHOWN_OUTPUT :] if log.exists() else ""

    def remove(self) -> None:
        """Remove every trace but the images: containers, processes, network, cgroups. Harmless when there is none."""
        if self.exists():
            # A dockerd that died leaves its containers running; only a dockerd can remove them cleanly.
            with contextlib.suppress(shell.CommandError, shell.TimeoutExpiredError):
                self.start()
                self._remove_containers()
        self._stop()
        _kill_namespace()
        _remove_network()
        _remove_cgroups()
        if (self.state / "made-lib-modules").exists() and MODULES.is_dir() and not any(MODULES.iterdir()):
            MODULES.rmdir()
        shutil.rmtree(self.state, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        wrapper = f"--add-runtime=without-sys-resource={RUNC_WRAPPER}"
        runtime = [wrapper, "--default-runtime=without-sys-resource"] if lacks_capability(_bounding_set()) else []
        # nsenter, not `ip netns exec`: the latter mounts another /sys, without cgroups. A mount namespace of its own
        # takes the engine's mounts away with it, however it ends.
        command = [
            *("nsenter", f"--net=/run/netns/{NAMESPACE}", "unshare", "--mount", "--propagation=slave", "--"),
            *("dockerd", f"--host={self.host}", f"--data-root={self.data}", f"--exec-root={self.state}/exec"),
            *(f"--pidfile={self.state}/engine.pid", f"--cgroup-parent=/{CGROUP}", "--default-cgroupns-mode=private"),
            *("--oom-score-adjust=0", *runtime),
        ]
        with (self.state / "dockerd.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _remove_containers(self) -> None:
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *containers)
        self.docker("volume", "prune", "--force")
        self.docker("network", "prune", "--force")

    def _stop(self) -> None:
        pid_file = self.state / "dockerd.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text())
        if _is_ours(pid, str(self.state)):
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(shell.TimeoutExpiredError):
                shell.wait_until(lambda: not _is_ours(pid, str(self.state)), what="dockerd ends", seconds=30)
            if _is_ours(pid, str(self.state)):
                os.kill(pid, signal.SIGKILL)


def private(settings: Settings) -> Engine:
    """The offline provider's engine."""
    return Engine(state=settings.state, data=settings.engine)


def lacks_capability(bounding_set: int) -> bool:
    """Whether CAP_SYS_RESOURCE is missing from a bounding set, as /proc/self/status prints it."""
    return not bounding_set >> CAP_SYS_RESOURCE & 1


def _bounding_set() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("CapBnd:")).split()[1], 16)


def _is_ours(pid: int, mark: str) -> bool:
    # After a reboot the number may belong to anybody.
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return mark in Path(f"/proc/{pid}/cmdline").read_text() and status.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _make_network() -> None:
    if Path("/run/netns", NAMESPACE).exists():
        return
    shell.run(["ip", "netns", "add", NAMESPACE])
    shell.run(["ip", "link", "add", HOST_DEVICE, "type", "veth", "peer", ENGINE_DEVICE, "netns", NAMESPACE])
    shell.run(["ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", HOST_DEVICE])
    shell.run(["ip", "link", "set", HOST_DEVICE, "up"])
    inside = ["ip", "-netns", NAMESPACE]
    shell.run([*inside, "address", "add", f"{ADDRESS}/30", "dev", ENGINE_DEVICE])
    shell.run([*inside, "link", "set", ENGINE_DEVICE, "up"])
    shell.run([*inside, "link", "set", "lo", "up"])


def _kill_namespace() -> None:
    if not Path("/run/netns", NAMESPACE).exists():
        return
    for pid in shell.run(["ip", "netns", "pids", NAMESPACE]).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _remove_network() -> None:
    for device in (Path("/sys/class/net", HOST_DEVICE),):
        if device.exists():
            shell.run(["ip", "link", "delete", HOST_DEVICE])
    if Path("/run/netns", NAMESPACE).exists():
        shell.run(["ip", "netns", "delete", NAMESPACE])


def _remove_cgroups() -> None:
    # A cgroup is removed by rmdir once it is empty, children first; its files cannot be unlinked.
    for group in (CGROUPS / CGROUP, *CGROUPS.glob(f"*/{CGROUP}")):
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
