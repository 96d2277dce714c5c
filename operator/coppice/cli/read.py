"""Objects as a person names them."""

from __future__ import annotations

from collections.abc import Sequence

from coppice.cli.problems import Failure
from coppice.cli.session import Session
from coppice.cli.versions import KINDS, Subject
from coppice.cli.wishes import Place
from coppice.core.plan import Manifest
from coppice.kube.errors import ForbiddenError


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


async def placed(session: Session, kind: str, place: Place) -> Manifest:
    """Return an object of a kind; raises Failure where there is none."""
    return await the(session, kind, place.name, place.within(session.namespace))


async def meant(session: Session, subject: Subject, kinds: Sequence[str] = ("DataClone", "DataStore")) -> Manifest:
    """Return what a person names, of one of these kinds; raises Failure where it is none or several."""
    if subject.kind is not None:
        if subject.kind not in kinds:
            raise Failure(f"{subject.kind} {subject.place.name} has no data of its own: name a clone or a store")
        return await placed(session, subject.kind, subject.place)
    name, namespace = subject.place.name, subject.place.within(session.namespace)
    found: list[Manifest] = []
    refusals: list[ForbiddenError] = []
    for kind in kinds:
        try:
            found += [entry for entry in [await session.cluster.get(kind, name, namespace)] if entry is not None]
        except ForbiddenError as error:
            refusals.append(error)
    if len(found) == 1:
        return found[0]
    if refusals and not found:
        raise refusals[0]
    if not found:
        raise Failure(
            f"there is no {' or '.join(kinds)} {name} in namespace {namespace}: coppice tree shows what there is, and "
            "another namespace is named NAMESPACE/NAME"
        )
    words = " or ".join(f"{word}/{name}" for word, kind in KINDS.items() if kind in kinds)
    raise Failure(f"{name} is the name of several in namespace {namespace}: write {words}")
