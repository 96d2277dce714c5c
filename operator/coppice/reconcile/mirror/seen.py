"""What there is of a mirror beside its server: its copies, the programs that fill the next one, and the login to the
source.

The user's Secret is not Coppice's, so that no watch tells of it: it is read anew at every look.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coppice.api.v1alpha1 import DataStore, Mirror
from coppice.core import labels
from coppice.core.names import child
from coppice.core.plan import Manifest
from coppice.kube.client import KubeReader
from coppice.manifests.secret import SourceLogin, is_meant_for, read_source
from coppice.reconcile.mirror.copies import MirrorCopy, current_copy, read_mirror_copies, served_copy
from coppice.reconcile.observed import annotation, pod_state
from coppice.reconcile.provisioning import Complaint, read_complaint
from coppice.reconcile.reads import get_each, read_last_line
from coppice.reconcile.told import Told, parse_told

DUMP = "dump"
RESTORE = "restore"


def program_name(store: str, program: str) -> str:
    """Return the name of the Pod that dumps or restores, and of its NetworkPolicy."""
    return child(store, program)


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two programs of a refresh: its Pod, its policy, and what it has told last."""

    pod: Manifest | None = None
    policy: Manifest | None = None
    told: Told | None = None

    def runs_on(self, copy: MirrorCopy) -> bool:
        """Return whether it was made for exactly this copy."""
        return self.pod is not None and annotation(self.pod, labels.INPUTS) == copy.uid

    def succeeded_on(self, copy: MirrorCopy) -> bool:
        """Return whether it has ended well on exactly this copy."""
        return self.pod is not None and self.runs_on(copy) and pod_state(self.pod).succeeded

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Return what there is of it, in the order in which it is to go."""
        return tuple(entry for entry in (self.pod, self.policy) if entry is not None)


@dataclass(frozen=True, slots=True)
class MirrorSeen:
    """All of it. ``complaint`` is about the volume of the copy that is being filled."""

    store: str
    copies: tuple[MirrorCopy, ...]
    served: MirrorCopy | None
    current: MirrorCopy | None
    secret: Manifest | None
    dump: Program
    restore: Program
    complaint: Complaint | None

    @property
    def pods(self) -> tuple[Manifest, ...]:
        """Return the Pods of the two programs."""
        return tuple(program.pod for program in (self.restore, self.dump) if program.pod is not None)

    def login(self, default_port: int) -> SourceLogin | str | None:
        """Return where the source is; what is wrong with the Secret; None if it may not be used."""
        if self.secret is None or not is_meant_for(self.secret, self.store):
            return None
        return read_source(self.secret, default_port)


async def observe_mirror(
    reader: KubeReader, store: DataStore, wanted: Mirror, now: datetime, *, admin: Manifest | None
) -> MirrorSeen:
    """Read what there is of a mirror, but for its server."""
    namespace, name = store.metadata.namespace, store.metadata.name
    copies = await read_mirror_copies(reader, namespace, name)
    served = served_copy(copies, store.metadata.uid, admin)
    current = current_copy(copies, store.metadata.uid, served)
    secret, *programs = await get_each(
        reader,
        namespace,
        ("Secret", wanted.from_.secret_name),
        ("Pod", program_name(name, DUMP)),
        ("NetworkPolicy", program_name(name, DUMP)),
        ("Pod", program_name(name, RESTORE)),
        ("NetworkPolicy", program_name(name, RESTORE)),
    )
    return MirrorSeen(
        store=name,
        copies=copies,
        served=served,
        current=current,
        secret=secret,
        dump=Program(programs[0], programs[1], await _last_told(reader, programs[0])),
        restore=Program(programs[2], programs[3], await _last_told(reader, programs[2])),
        complaint=None if current is None else await read_complaint(reader, current.claim, now),
    )


async def _last_told(reader: KubeReader, pod: Manifest | None) -> Told | None:
    """Return what a program has told last; None while it has not begun."""
    if pod is None:
        return None
    state = pod_state(pod)
    if not (state.running or state.succeeded or state.failed):
        return None
    return parse_told(await read_last_line(reader, pod))
