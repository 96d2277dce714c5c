"""What to create for a person's words, as manifests built by the API's own models. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from coppice.api.v1alpha1 import (
    API_VERSION,
    LIVE_BRANCH,
    Binding,
    CloneFrom,
    CloneRef,
    DataBranchSpec,
    DataChangeRequestSpec,
    DataCloneSpec,
    DataReviewSpec,
    DataSnapshotSpec,
    From,
    History,
    Lease,
    MergePolicy,
    OnClose,
    OnRevision,
    Publish,
    PullRequestRef,
    Resolution,
    SnapshotCommit,
    StoreRef,
    Take,
    Verdict,
)
from coppice.api.v1alpha1.common import LocalStoreRef
from coppice.api.v1alpha1.datasnapshot import SnapshotFrom
from coppice.core.plan import Manifest

POINTS: Final = ("tag", "commit", "snapshot", "time", "migration")
"""Ways to name a point of a store beside its branches."""
MAX_BRANCH_OBJECT: Final = 40


class WrongWordsError(ValueError):
    """What was asked for makes no sense; the message says how to ask."""


@dataclass(frozen=True, slots=True)
class Place:
    """An object by name, in a namespace that may be left out."""

    name: str
    namespace: str | None = None

    def within(self, namespace: str) -> str:
        """Return the namespace that is meant, for somebody who is in this one."""
        return self.namespace or namespace


@dataclass(frozen=True, slots=True)
class Source:
    """A point of a store: ``branch``, or one of ``POINTS``."""

    store: Place
    point: Mapping[str, str]


def read_place(text: str) -> Place:
    """Return what ``[NAMESPACE/]NAME`` names."""
    namespace, slash, name = text.rpartition("/")
    if not name or (slash and not namespace) or "/" in namespace:
        raise WrongWordsError(f"{text!r} is not [NAMESPACE/]NAME, for example data/shop")
    return Place(name, namespace or None)


def read_source(text: str, points: Mapping[str, str | None]) -> Source:
    """Return what ``[NAMESPACE/]STORE[:BRANCH]`` and at most one of ``POINTS`` name; the branch ``main`` if nothing
    does.
    """
    store, colon, branch = text.partition(":")
    if colon and not branch:
        raise WrongWordsError(f"{text!r} names no branch: leave out the colon, or write shop:main")
    given = {name: value for name, value in points.items() if value is not None}
    if branch:
        given["branch"] = branch
    if len(given) > 1:
        raise WrongWordsError(f"{' and '.join(sorted(given))} are two points of the store: name one")
    return Source(read_place(store), given or {"branch": LIVE_BRANCH})


def clone_wish(
    name: str,
    namespace: str,
    source: Source,
    *,
    lease: Mapping[str, str | None] | None = None,
    profile: str | None = None,
    secret: str | None = None,
) -> Manifest:
    """Return the DataClone to create."""
    with _wording():
        wished = {key: value for key, value in (lease or {}).items() if value is not None}
        spec = DataCloneSpec(
            from_=CloneFrom(store=_store(source.store, namespace), **_given(source.point)),
            **({"lease": Lease(**_given(wished))} if wished else {}),
            **({"profile": profile} if profile else {}),
            **({"binding": Binding(secret_name=secret)} if secret else {}),
        )
    return _manifest("DataClone", name, namespace, spec)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a clone is for: a pull request at one of its commits."""

    pull_request: PullRequestRef
    revision: str | None = None
    on_revision: OnRevision | None = None
    on_close: OnClose | None = None
    migrations: str | None = None
    app_url: str | None = None


def preview_wish(wish: Manifest, preview: Preview) -> Manifest:
    """Return the DataClone to create for a pull request: ``wish``, and what it is for."""
    reference = preview.pull_request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    said = {
        "pullRequest": {**reference, **({"appURL": preview.app_url} if preview.app_url else {})},
        "revision": preview.revision,
        "onRevision": preview.on_revision,
        "onClose": preview.on_close,
        "migrations": {"jobTemplate": preview.migrations} if preview.migrations else None,
    }
    with _wording():
        spec = DataCloneSpec.model_validate(
            {**wish["spec"], **{key: value for key, value in said.items() if value is not None}}
        )
    return _manifest(wish["kind"], wish["metadata"]["name"], wish["metadata"]["namespace"], spec)


def branch_wish(
    branch: str, namespace: str, source: Source, *, name: str | None = None, squash: bool = False
) -> Manifest:
    """Return the DataBranch to create for a branch by the engine's own name."""
    history: dict[str, Any] = {"history": History.SQUASHED} if squash else {}
    with _wording():
        spec = DataBranchSpec(
            store=_store(source.store, namespace), branch_name=branch, from_=From(**_given(source.point)), **history
        )
    return _manifest("DataBranch", name or object_name(branch), namespace, spec)


def object_name(branch: str) -> str:
    """Return a name for the object of a branch: ``feature/Autumn`` is ``feature-autumn``."""
    return re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")[:MAX_BRANCH_OBJECT].strip("-")


def snapshot_wish(name: str, store: Place, namespace: str) -> Manifest:
    """Return the DataSnapshot of a store to create, in the store's namespace."""
    with _wording():
        spec = DataSnapshotSpec(store=LocalStoreRef(name=store.name))
    return _manifest("DataSnapshot", name, store.within(namespace), spec)


def commit_wish(clone: Manifest, branch: str, *, parent: str | None = None, name: str | None = None) -> Manifest:
    """Return the DataSnapshot to create that commits a clone to a branch, in the namespace of the clone's store.

    The parent is what the clone's present copy was made from, if none is named; the name follows from the parent's.
    """
    status, metadata = clone.get("status") or {}, clone["metadata"]
    where = f"{metadata['namespace']}/{metadata['name']}"
    came_from = parent or (status.get("snapshot") or {}).get("name")
    store = (status.get("source") or {}).get("store")
    if not came_from or not store:
        raise WrongWordsError(f"DataClone {where} has no copy yet that could be committed: wait until it is Ready")
    owners, _, store_name = store.partition("/")
    same = metadata["namespace"] == owners
    with _wording():
        spec = DataSnapshotSpec(
            store=LocalStoreRef(name=store_name),
            from_=SnapshotFrom(
                clone=CloneRef(name=metadata["name"], **({} if same else {"namespace": metadata["namespace"]}))
            ),
            commit=SnapshotCommit(branch=branch, parent=came_from),
        )
    return _manifest("DataSnapshot", name or commit_name(branch, came_from), owners, spec)


def commit_name(branch: str, parent: str) -> str:
    """Return the name of the commit after this parent: ``autumn-3`` after ``autumn-2``, else ``autumn-1``."""
    number = re.fullmatch(re.escape(branch) + r"-([1-9][0-9]*)", parent)
    return f"{branch}-{int(number[1]) + 1 if number else 1}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What somebody proposes: a source as ``spec.from`` has it, and the branch it goes into."""

    store: Place
    source: Mapping[str, Any]
    into: str
    author: str
    title: str
    description: str | None = None
    manual: bool = False
    publish: Publish | None = None


def change_wish(name: str, namespace: str, proposal: Proposal) -> Manifest:
    """Return the DataChangeRequest to create, in the store's namespace."""
    with _wording():
        spec = DataChangeRequestSpec.model_validate(
            {
                "title": proposal.title,
                **({"description": proposal.description} if proposal.description else {}),
                "store": {"name": proposal.store.name},
                "author": proposal.author,
                "from": dict(proposal.source),
                "into": {"branch": proposal.into},
                **({"merge": MergePolicy.MANUAL} if proposal.manual else {}),
                **({"publish": proposal.publish} if proposal.publish else {}),
            }
        )
    return _manifest("DataChangeRequest", name, proposal.store.within(namespace), spec)


def change_name(words: str) -> str:
    """Return a name for a request that says what it is."""
    return object_name(words) or generated_name("change")


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody says of a request."""

    reviewer: str
    groups: tuple[str, ...]
    verdict: Verdict
    patch: Mapping[str, str] | None
    comment: str | None


def review_wish(request: Manifest, name: str, opinion: Opinion) -> Manifest:
    """Return the DataReview to create, beside the request, with which it goes."""
    metadata = request["metadata"]
    with _wording():
        spec = DataReviewSpec.model_validate({"request": metadata["name"], **opinion_spec(opinion)})
    made = _manifest("DataReview", name, metadata["namespace"], spec)
    # Nobody but the reviewer may say so: the API server lets no other write to a review.
    owner = {"apiVersion": request["apiVersion"], "kind": request["kind"], "name": metadata["name"]}
    made["metadata"]["ownerReferences"] = [{**owner, "uid": metadata["uid"]}]
    return made


def opinion_spec(opinion: Opinion) -> dict[str, Any]:
    """Return the fields of a review by which an opinion is told."""
    said = {"patch": opinion.patch and dict(opinion.patch), "comment": opinion.comment}
    return {
        "reviewer": opinion.reviewer,
        "groups": list(opinion.groups),
        "verdict": opinion.verdict.value,
        **{key: value for key, value in said.items() if value},
    }


def review_name(request: Manifest, reviewer: str) -> str:
    """Return the name of somebody's review: one for each person and request; they may think better of it."""
    metadata = request["metadata"]
    whose = f"{metadata['uid']}/{reviewer}"
    return f"{metadata['name']}-{hashlib.sha256(whose.encode()).hexdigest()[:10]}"


def decisions(conflicts: Sequence[str], rows: Sequence[str], tables: Sequence[str], take: str) -> list[dict[str, Any]]:
    """Return resolutions that take one side: of some conflicts, rows and tables, or, with none named, of all."""
    side = Take(take.capitalize())
    named = [
        *({"conflict": entry} for entry in conflicts),
        *({"row": entry} for entry in rows),
        *({"table": entry} for entry in tables),
    ]
    with _wording():
        wished = [Resolution.model_validate({**entry, "take": side}) for entry in named or [{}]]
    return [entry.model_dump(mode="json", by_alias=True, exclude_unset=True) for entry in wished]


def request_of(seen: Manifest, annotation: str, token: str) -> Manifest:
    """Return the apply by which somebody asks for something of exactly this object."""
    metadata = seen["metadata"]
    identity = {key: metadata[key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": seen["apiVersion"],
        "kind": seen["kind"],
        "metadata": {**identity, "annotations": {annotation: token}},
    }


def edit_of(seen: Manifest, spec: Mapping[str, Any]) -> Manifest:
    """Return the patch that changes exactly this version of an object."""
    identity = {key: seen["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": seen["apiVersion"], "kind": seen["kind"], "metadata": identity, "spec": spec}


def generated_name(prefix: str) -> str:
    """Return a name that nobody else has."""
    return f"{prefix}-{secrets.token_hex(4)}"


def _store(place: Place, namespace: str) -> StoreRef:
    if place.namespace in {None, namespace}:
        return StoreRef(name=place.name)
    return StoreRef(name=place.name, namespace=place.namespace)


def _given(values: Mapping[str, str]) -> dict[str, Any]:
    """Return words of a person for a model's fields: the model reads them, or says what is wrong with them."""
    return dict(values)


def _manifest(kind: str, name: str, namespace: str, spec: BaseModel) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }


@contextmanager
def _wording() -> Iterator[None]:
    """Turn what a model says of a value into words about the field."""
    try:
        yield
    except ValidationError as error:
        raise WrongWordsError("; ".join(_problem(entry) for entry in error.errors())) from error


def _problem(entry: ErrorDetails) -> str:
    field = ".".join(to_camel(str(part).rstrip("_")) for part in entry["loc"])
    return f"{field} {entry['input']!r}: {entry['msg']}" if field else entry["msg"]
