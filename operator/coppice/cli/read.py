"""Objects as a person names them."""

from __future__ import annotations

from collections.abc import Sequence

from coppice.cli.problems import Failure
from coppice.cli.session import Session
from coppice.core.plan import Manifest


async def the(session: Session, kind: str, name: str, namespace: str) -> Manifest:
    """Return an object; raises Failure where there is none."""
    found = await session.cluster.get(kind, name, namespace)
    if found is not None:
        return found
    others = [entry["metadata"]["name"] for entry in await session.cluster.list(kind, namespace)]
    raise Failure(f"there is no {kind} {name} in namespace {namespace}: {_instead(others)}")


def _instead(names: Sequence[str]) -> str:
    listed = f"there are {', '.join(sorted(names)[:10])}" if names else "there is none at all"
    return f"{listed}. Another namespace is named with --namespace"
