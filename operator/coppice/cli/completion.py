"""What a shell offers while a person types: the names of objects that there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import click

from coppice.cli.session import Surroundings
from coppice.kube.errors import KubeError
from coppice.kube.login import LoginError

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names_of(*kinds: str, prefixed: Mapping[str, str] | None = None) -> Complete:
    """Return what completes an argument with the names of these kinds; where they cannot be had it is silent.

    ``prefixed``: further kinds, by what stands before their names.
    """
    asked = [*(("", kind) for kind in kinds), *(prefixed or {}).items()]

    def complete(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        around = context.find_object(Surroundings) or Surroundings()
        try:
            return [name for name in asyncio.run(_names(around, context, asked)) if name.startswith(begun)]
        except (KubeError, LoginError):
            return []

    return complete


async def _names(around: Surroundings, context: click.Context, kinds: Sequence[tuple[str, str]]) -> list[str]:
    before = context.parent.params if context.parent is not None else {}
    given = {key: context.params.get(key) or before.get(key) for key in ("kubeconfig", "context", "namespace")}
    async with around.connect(given["kubeconfig"], given["context"]) as connection:
        namespace = given["namespace"] or connection.namespace
        found = await asyncio.gather(*(connection.cluster.list(kind, namespace) for _, kind in kinds))
    prefixes = [prefix for prefix, _ in kinds]
    pairs = zip(prefixes, found, strict=True)
    return sorted({f"{prefix}{entry['metadata']['name']}" for prefix, entries in pairs for entry in entries})
