"""The Controller service of the CSI: volumes and snapshots of this node's pool."""

import time
from dataclasses import replace

from google.protobuf import timestamp_pb2, wrappers_pb2

from coppice.csi import capabilities, paging, parameters, sizes
from coppice.csi.catalog import SnapshotRecord, Source, SourceKind, State, VolumeRecord
from coppice.csi.errors import (
    CsiError,
    already_exists,
    failed_precondition,
    invalid_argument,
    not_found,
    resource_exhausted,
)
from coppice.csi.proto import csi_pb2
from coppice.csi.settings import TOPOLOGY_KEY
from coppice.csi.volumes import Volumes, snapshot_id, volume_id

_Capability = csi_pb2.ControllerServiceCapability
_CAPABILITIES = (
    _Capability.RPC.CREATE_DELETE_VOLUME,
    _Capability.RPC.LIST_VOLUMES,
    _Capability.RPC.GET_CAPACITY,
    _Capability.RPC.CREATE_DELETE_SNAPSHOT,
    _Capability.RPC.LIST_SNAPSHOTS,
    _Capability.RPC.GET_SNAPSHOT,
    _Capability.RPC.CLONE_VOLUME,
    _Capability.RPC.EXPAND_VOLUME,
    _Capability.RPC.SINGLE_NODE_MULTI_WRITER,
)


class Controller:
    """The Controller service for the pool of node `node_id`."""

    def __init__(self, volumes: Volumes, node_id: str) -> None:
        self._volumes = volumes
        self._node_id = node_id

    def controller_get_capabilities(
        self, _: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """What this service can do."""
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[_Capability(rpc=_Capability.RPC(type=kind)) for kind in _CAPABILITIES]
        )

    def create_volume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        """Make a volume, empty or a copy; the same request again answers with the same volume."""
        if not request.name:
            raise invalid_argument("the volume's name is missing")
        capabilities.check_all(request.volume_capabilities)
        self._require_this_node(request.accessibility_requirements)
        wanted = parameters.parse(request.parameters)
        source = _source(request)
        self._require_countable(wanted)
        identifier = volume_id(request.name)
        with self._volumes.locks.exclusive(identifier):
            existing = self._volumes.volumes.ready(identifier)
            if existing is not None:
                _require_same(existing, request, source)
                return csi_pb2.CreateVolumeResponse(volume=self._message(existing))
            if source is None:
                return self._create(request, wanted, None, 0)
            with self._volumes.locks.shared(source.id):
                return self._create(request, wanted, source, self._source_size(source))

    def delete_volume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        """Remove a volume that no Pod uses; one that is gone already is fine."""
        if not request.volume_id:
            raise invalid_argument("the volume's id is missing")
        with self._volumes.locks.exclusive(request.volume_id):
            record = self._volumes.volumes.get(request.volume_id)
            if record is not None:
                self._volumes.delete(record)
        return csi_pb2.DeleteVolumeResponse()

    def validate_volume_capabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Whether an existing volume can be used in all of the ways asked for."""
        self._volume(request.volume_id)
        if not request.volume_capabilities:
            raise invalid_argument("volume capabilities are missing")
        try:
            capabilities.check_all(request.volume_capabilities)
            parameters.parse(request.parameters)
        except CsiError as error:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=error.message)
        return csi_pb2.ValidateVolumeCapabilitiesResponse(
            confirmed=csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
            )
        )

    def list_volumes(self, request: csi_pb2.ListVolumesRequest) -> csi_pb2.ListVolumesResponse:
        """All volumes, by id, in pages."""
        ready = [record for record in self._volumes.volumes.all() if record.state is State.READY]
        shown, token = paging.page(ready, request.starting_token, request.max_entries)
        entry = csi_pb2.ListVolumesResponse.Entry
        return csi_pb2.ListVolumesResponse(
            entries=[entry(volume=self._message(record)) for record in shown], next_token=token
        )

    def get_capacity(self, request: csi_pb2.GetCapacityRequest) -> csi_pb2.GetCapacityResponse:
        """Bytes for new data; and the largest nominal size, which is the pool's, for copies take next to nothing."""
        if not _is_here(request.accessible_topology, self._node_id):
            return csi_pb2.GetCapacityResponse(available_capacity=0)
        available = self._volumes.pool.available_bytes()
        largest = self._volumes.pool.total_bytes() if available else 0
        return csi_pb2.GetCapacityResponse(
            available_capacity=available, maximum_volume_size=wrappers_pb2.Int64Value(value=largest)
        )

    def create_snapshot(self, request: csi_pb2.CreateSnapshotRequest) -> csi_pb2.CreateSnapshotResponse:
        """Freeze a volume as of now, also while programs write to it; ready at once."""
        if not request.name:
            raise invalid_argument("the snapshot's name is missing")
        if not request.source_volume_id:
            raise invalid_argument(f"snapshot {request.name}: the source volume's id is missing")
        parameters.refuse_unknown(request.parameters)
        identifier = snapshot_id(request.name)
        locks = self._volumes.locks
        with locks.exclusive(identifier), locks.shared(request.source_volume_id):
            existing = self._volumes.snapshots.ready(identifier)
            if existing is None:
                existing = self._snapshot(request, identifier)
            elif existing.source_volume_id != request.source_volume_id:
                raise already_exists(f"snapshot {request.name} exists, of volume {existing.source_volume_id}")
        return csi_pb2.CreateSnapshotResponse(snapshot=_snapshot_message(existing))

    def delete_snapshot(self, request: csi_pb2.DeleteSnapshotRequest) -> csi_pb2.DeleteSnapshotResponse:
        """Remove a snapshot; volumes made from it stay. One that is gone already is fine."""
        if not request.snapshot_id:
            raise invalid_argument("the snapshot's id is missing")
        with self._volumes.locks.exclusive(request.snapshot_id):
            record = self._volumes.snapshots.get(request.snapshot_id)
            if record is not None:
                self._volumes.delete(record)
        return csi_pb2.DeleteSnapshotResponse()

    def list_snapshots(self, request: csi_pb2.ListSnapshotsRequest) -> csi_pb2.ListSnapshotsResponse:
        """All snapshots, or those of one volume, or the one of this id; by id, in pages."""
        ready = [
            record
            for record in self._volumes.snapshots.all()
            if record.state is State.READY
            and request.snapshot_id in {"", record.id}
            and request.source_volume_id in {"", record.source_volume_id}
        ]
        shown, token = paging.page(ready, request.starting_token, request.max_entries)
        entry = csi_pb2.ListSnapshotsResponse.Entry
        return csi_pb2.ListSnapshotsResponse(
            entries=[entry(snapshot=_snapshot_message(record)) for record in shown], next_token=token
        )

    def get_snapshot(self, request: csi_pb2.GetSnapshotRequest) -> csi_pb2.GetSnapshotResponse:
        """The snapshot of this id."""
        if not request.snapshot_id:
            raise invalid_argument("the snapshot's id is missing")
        return csi_pb2.GetSnapshotResponse(snapshot=_snapshot_message(self._snapshot_record(request.snapshot_id)))

    def controller_expand_volume(
        self, request: csi_pb2.ControllerExpandVolumeRequest
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Let a volume be larger; nothing is left to do on the node."""
        if not request.volume_id:
            raise invalid_argument("the volume's id is missing")
        if not request.HasField("capacity_range"):
            raise invalid_argument(f"volume {request.volume_id}: the new size is missing")
        with self._volumes.locks.exclusive(request.volume_id):
            record = self._volume(request.volume_id)
            capacity = sizes.capacity_of_grown(
                current=record.capacity,
                required=request.capacity_range.required_bytes,
                limit=request.capacity_range.limit_bytes,
                pool=self._volumes.pool.total_bytes(),
            )
            if capacity != record.capacity:
                self._volumes.volumes.put(replace(record, capacity=capacity))
        return csi_pb2.ControllerExpandVolumeResponse(capacity_bytes=capacity, node_expansion_required=False)

    def _create(
        self,
        request: csi_pb2.CreateVolumeRequest,
        wanted: parameters.ClassParameters,
        source: Source | None,
        source_size: int,
    ) -> csi_pb2.CreateVolumeResponse:
        record = VolumeRecord(
            id=volume_id(request.name),
            name=request.name,
            state=State.CREATING,
            capacity=sizes.capacity_of_new(
                required=request.capacity_range.required_bytes,
                limit=request.capacity_range.limit_bytes,
                source=source_size,
                pool=self._volumes.pool.total_bytes(),
            ),
            source=source,
            own_bytes=wanted.own_bytes if source is not None else None,
            own_bytes_headroom=wanted.own_bytes_headroom,
        )
        return csi_pb2.CreateVolumeResponse(volume=self._message(self._volumes.create_volume(record, wanted.owner)))

    def _snapshot(self, request: csi_pb2.CreateSnapshotRequest, identifier: str) -> SnapshotRecord:
        source = self._volume(request.source_volume_id)
        record = SnapshotRecord(
            id=identifier,
            name=request.name,
            state=State.CREATING,
            source_volume_id=source.id,
            size=source.capacity,
            created_at=time.time_ns(),
        )
        return self._volumes.create_snapshot(record, source)

    def _volume(self, identifier: str) -> VolumeRecord:
        if not identifier:
            raise invalid_argument("the volume's id is missing")
        record = self._volumes.volumes.ready(identifier)
        if record is None:
            raise not_found(f"there is no volume {identifier}")
        return record

    def _snapshot_record(self, identifier: str) -> SnapshotRecord:
        record = self._volumes.snapshots.ready(identifier)
        if record is None:
            raise not_found(f"there is no snapshot {identifier}")
        return record

    def _source_size(self, source: Source) -> int:
        if source.kind is SourceKind.VOLUME:
            return self._volume(source.id).capacity
        return self._snapshot_record(source.id).size

    def _require_this_node(self, requirement: csi_pb2.TopologyRequirement) -> None:
        if requirement.requisite and not any(_is_here(topology, self._node_id) for topology in requirement.requisite):
            raise resource_exhausted(f"volumes can only be made on node {self._node_id}: let the Pod run there")

    def _require_countable(self, wanted: parameters.ClassParameters) -> None:
        if wanted.own_bytes is not None and not self._volumes.counts_bytes:
            raise failed_precondition(
                "the class sets ownBytes but quotas are off in the pool: start the driver with --quota simple, "
                "or leave it out"
            )

    def _message(self, record: VolumeRecord) -> csi_pb2.Volume:
        return csi_pb2.Volume(
            volume_id=record.id,
            capacity_bytes=record.capacity,
            content_source=_source_message(record.source),
            accessible_topology=[csi_pb2.Topology(segments={TOPOLOGY_KEY: self._node_id})],
        )


def _source(request: csi_pb2.CreateVolumeRequest) -> Source | None:
    if not request.HasField("volume_content_source"):
        return None
    content = request.volume_content_source
    if content.HasField("snapshot"):
        source = Source(kind=SourceKind.SNAPSHOT, id=content.snapshot.snapshot_id)
    else:
        source = Source(kind=SourceKind.VOLUME, id=content.volume.volume_id)
    if not source.id:
        raise invalid_argument(f"volume {request.name}: the id of the {source.kind} to copy is missing")
    return source


def _require_same(existing: VolumeRecord, request: csi_pb2.CreateVolumeRequest, source: Source | None) -> None:
    asked = request.capacity_range
    if not sizes.fits(existing.capacity, required=asked.required_bytes, limit=asked.limit_bytes):
        raise already_exists(f"volume {request.name} exists with {existing.capacity} bytes")
    if existing.source != source:
        raise already_exists(f"volume {request.name} exists with another content")


def _source_message(source: Source | None) -> csi_pb2.VolumeContentSource | None:
    if source is None:
        return None
    content = csi_pb2.VolumeContentSource
    if source.kind is SourceKind.SNAPSHOT:
        return content(snapshot=content.SnapshotSource(snapshot_id=source.id))
    return content(volume=content.VolumeSource(volume_id=source.id))


def _snapshot_message(record: SnapshotRecord) -> csi_pb2.Snapshot:
    created_at = timestamp_pb2.Timestamp()
    created_at.FromNanoseconds(record.created_at)
    return csi_pb2.Snapshot(
        snapshot_id=record.id,
        source_volume_id=record.source_volume_id,
        size_bytes=record.size,
        creation_time=created_at,
        ready_to_use=True,
    )


def _is_here(topology: csi_pb2.Topology, node_id: str) -> bool:
    return topology.segments.get(TOPOLOGY_KEY, node_id) == node_id
