"""The command line: `python -m e2e.harness up`."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from e2e.harness import checks, debian, images, providers, shell, toolchain
from e2e.harness.cluster import Cluster, ClusterError, current
from e2e.harness.settings import Settings, SettingsError, from_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOST_PACKAGES: Final = {
    "sanity": debian.STORAGE_PACKAGES,
    "postgresql": debian.DATABASE_PACKAGES,
    "stunnel": debian.TLS_PACKAGES,
}
ASSETS: Final = (*toolchain.TOOLS, "postgresql", "stunnel")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with a message on standard error otherwise."""
    options = _parser().parse_args(arguments)
    try:
        settings = from_environment(os.environ)
        return int(options.command(settings, options))
    except (SettingsError, ClusterError, shell.CommandError, shell.TimeoutExpiredError) as error:
        shell.say(f"error: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.harness", description="The cluster the tests run on.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("up", help="make a cluster unless a healthy one is there").set_defaults(command=_up)
    commands.add_parser("down", help="remove the cluster without a trace; caches stay").set_defaults(command=_down)
    commands.add_parser("status", help="tell what is there").set_defaults(command=_status)
    commands.add_parser("env", help='print exports: eval "$(python -m e2e.harness env)"').set_defaults(command=_env)
    load = commands.add_parser("load-image", help="load images of the local engine into the cluster")
    load.add_argument("refs", nargs="+", metavar="IMAGE")
    load.set_defaults(command=_load_image)
    build = commands.add_parser("images", help="build the images that changed, load them and print their names")
    build.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(images.refs())}; default: all")
    build.set_defaults(command=_images)
    programs = "build pinned Go programs, install Debian's, and print exports: a PATH"
    assets = commands.add_parser("assets", aliases=["tools"], help=programs)
    assets.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ASSETS)}; default: all")
    assets.set_defaults(command=_assets)
    return parser


def _up(settings: Settings, _: argparse.Namespace) -> int:
    with _lock(settings):
        recorded = Cluster.read(settings.state)
        if recorded is not None and recorded.is_healthy():
            shell.say(f"the cluster is up ({recorded.provider}, {recorded.profile} profile)")
            return 0
        if settings.state.exists():
            with shell.step("remove what an earlier cluster left"):
                providers.remove(settings)
        provider = providers.choose(settings, providers.look(settings))
        with shell.step("cluster"):
            cluster = providers.create(provider, settings)
        found = checks.run(cluster, image=images.python_base(cluster))
        _link_programs(cluster)
        replace(cluster, network_policies_enforced=found.network_policies_enforced).write()
    shell.say(f'the cluster is up: eval "$({sys.executable} -m e2e.harness env)"')
    return 0


def _down(settings: Settings, _: argparse.Namespace) -> int:
    with _lock(settings), shell.step("remove the cluster"):
        providers.remove(settings)
    return 0


def _status(settings: Settings, _: argparse.Namespace) -> int:
    cluster = current(settings)
    healthy = cluster.is_healthy()
    print(f"provider: {cluster.provider}, profile: {cluster.profile}, kubeconfig: {cluster.kubeconfig}")
    print(f"API server: {'ready' if healthy else 'not ready'}")
    print(f"NetworkPolicies enforced: {'yes' if cluster.network_policies_enforced else 'no'}")
    return 0 if healthy else 1


def _env(settings: Settings, _: argparse.Namespace) -> int:
    cluster = current(settings)
    for name, value in cluster.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    print(_path_export(str(cluster.state / "bin")))
    return 0


def _load_image(settings: Settings, options: argparse.Namespace) -> int:
    cluster = current(settings)
    for ref in options.refs:
        with shell.step(f"load {ref}"):
            cluster.load_image(ref)
    return 0


def _images(settings: Settings, options: argparse.Namespace) -> int:
    cluster = current(settings)
    with _lock(settings):
        for name in options.names or images.refs():
            print(images.ensure(name, cluster, settings), flush=True)
    return 0


def _assets(settings: Settings, options: argparse.Namespace) -> int:
    names = options.names or list(ASSETS)
    if unknown := [name for name in names if name not in ASSETS]:
        raise SettingsError(f"no program {', '.join(unknown)}: there are {', '.join(ASSETS)}")
    with _lock(settings):
        tools = [toolchain.TOOLS[name] for name in names if name in toolchain.TOOLS]
        folders = [str(toolchain.build(tool, settings)) for tool in tools]
        for name in names:
            debian.install_host_packages(HOST_PACKAGES.get(name, {}))
    print(_path_export(*folders))
    return 0


def _path_export(*folders: str) -> str:
    return f'export PATH={shlex.quote(":".join(folders))}:"$PATH"'


def _link_programs(cluster: Cluster) -> None:
    folder = cluster.state / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "kubectl"
    link.unlink(missing_ok=True)
    link.symlink_to(cluster.kubectl)


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    # Two runs must not build or remove the same cluster at once; the kernel frees the lock of a run that died.
    settings.cache.mkdir(parents=True, exist_ok=True)
    with (settings.cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
