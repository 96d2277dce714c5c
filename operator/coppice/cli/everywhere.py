"""The options that stand before the name of a command as well as after it. They need nothing but click: the list of
commands is shown without importing what those need.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

_OPTIONS: Final = (
    click.option("--namespace", "-n", metavar="NAMESPACE", help="Namespace; that of the context if left out."),
    click.option("--context", metavar="CONTEXT", help="Context of the kubeconfig; the current one if left out."),
    click.option(
        "--kubeconfig", metavar="FILE", help="Kubeconfig; $KUBECONFIG, the Pod's account or ~/.kube/config if left out."
    ),
    click.option("--output", "-o", type=click.Choice(["table", "json"]), help="Form of the result; table if left out."),
)


def everywhere(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add these options to a command, or to the group of all."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
