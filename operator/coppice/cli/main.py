"""The `coppice` command. Each subcommand's module is imported when it is called: the CSI driver needs no kopf, the
operator no gRPC.
"""

from __future__ import annotations

from importlib import import_module

import click

from coppice import __version__

_COMMANDS = {
    "operator": ("coppice.runtime.main", "operator", "Run the operator."),
    "csi": ("coppice.csi.main", "csi", "Run the CSI driver coppice-local on this node."),
    "crds": ("coppice.cli.show", "crds", "Print the CustomResourceDefinitions."),
    "rbac": ("coppice.cli.show", "rbac", "Print the rules the operator needs."),
}


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup)
@click.version_option(__version__)
def main() -> None:
    """Give every pull request, test run and experiment its own production-like database."""
