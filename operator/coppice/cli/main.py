"""The `coppice` command. Each subcommand's module is imported when it is called: the CSI driver needs no kopf, the
operator no gRPC, and neither of them what people's commands draw with.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from coppice import __version__
from coppice.cli.everywhere import everywhere

_PEOPLE = {
    "clone": ("coppice.cli.make", "clone", "Make a clone of a store."),
    "run": ("coppice.cli.run", "run", "Run a command on a clone that is made for it."),
    "pr up": ("coppice.cli.pr", "up", "Have a clone for a pull request, at its newest commit."),
    "pr status": ("coppice.cli.pr", "status", "Show what people read of a pull request's clone."),
    "pr comment": ("coppice.cli.pr", "comment", "Write on a pull request what its clone is, once."),
    "pr down": ("coppice.cli.pr", "down", "Delete the clone of a pull request."),
    "connect": ("coppice.cli.connect", "connect", "Open the engine's shell, or a tunnel, to a clone."),
    "status": ("coppice.cli.look", "status", "Show how things are, and what to do now."),
    "tree": ("coppice.cli.look", "tree", "Show stores with their branches, snapshots and clones."),
    "branch": ("coppice.cli.make", "branch", "Make a branch in a store."),
    "branch restore": ("coppice.cli.restore", "restore", "Make a deleted branch again, or list what is kept."),
    "snapshot": ("coppice.cli.make", "snapshot", "Make a snapshot of a store, or commit a clone."),
    "tag": ("coppice.cli.history", "tag", "Give a commit a name that stays with it."),
    "log": ("coppice.cli.history", "log", "Show the commits of a branch."),
    "diff": ("coppice.cli.compare", "diff", "Show how versions differ, or what a request changes."),
    "commit": ("coppice.cli.history", "commit", "Make a commit of what was written."),
    "propose": ("coppice.cli.requests", "propose", "Propose changes for another branch."),
    "patch": ("coppice.cli.patches", "patch", "Print an approved change as SQL for a live database."),
    "review": ("coppice.cli.requests", "review", "Approve a request, or ask for changes."),
    "resolve": ("coppice.cli.requests", "resolve", "Decide conflicts of a request."),
    "revert": ("coppice.cli.requests", "revert", "Propose to take back what a request brought."),
    "rebase": ("coppice.cli.requests", "rebase", "Bring a branch or clone up to the one that it was made from."),
    "reset": ("coppice.cli.ask", "reset", "Replace the data of a clone by a new copy."),
    "extend": ("coppice.cli.ask", "extend", "Let the lease of a clone begin anew."),
    "wake": ("coppice.cli.ask", "wake", "Start the server of a clone that sleeps."),
    "delete": ("coppice.cli.ask", "delete", "Delete a clone."),
}
_PARTS = {
    "operator": ("coppice.runtime.main", "operator", "Run the operator."),
    "csi": ("coppice.csi.main", "csi", "Run the CSI driver coppice-local on this node."),
    "crds": ("coppice.cli.show", "crds", "Print the CustomResourceDefinitions."),
    "rbac": ("coppice.cli.show", "rbac", "Print the rules the operator needs."),
}
_COMMANDS = _PEOPLE | _PARTS


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name, importing its module."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; the name of one may be two words."""
        whole = " ".join(args[:2])
        return super().resolve_command(ctx, [whole, *args[2:]] if whole in _COMMANDS else args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        for heading, commands in (("Commands", _PEOPLE), ("Parts of an installation", _PARTS)):
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, _, text) in commands.items()])


@click.group(cls=LazyGroup)
@click.version_option(__version__)
@everywhere
@click.pass_context
def main(ctx: click.Context, /, **given: Any) -> None:
    """Give every pull request, test run and experiment its own production-like database."""
    # The same options may stand after the name of a command, where they count more.
    named = {name: value for name, value in given.items() if value is not None}
    ctx.default_map = dict.fromkeys(_PEOPLE, named)


def plugin() -> None:
    """Be ``kubectl coppice``: kubectl runs a program of this name (kubectl-coppice) as a command of its own."""
    main(prog_name="kubectl coppice")
