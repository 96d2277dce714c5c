"""How large a volume becomes, from what was asked for. Bytes throughout; 0 in a request means not given."""

from coppice.csi.errors import out_of_range

_DEFAULT_CAPACITY = 1024**3


def capacity_of_new(*, required: int, limit: int, source: int, pool: int) -> int:
    """The capacity of a new volume: a copy of something of size `source` (0: of nothing), in a pool of size `pool`."""
    wanted = required or source or min(_DEFAULT_CAPACITY, limit or _DEFAULT_CAPACITY)
    if wanted < source:
        raise out_of_range(f"{wanted} bytes are less than the source's {source}: ask for {source} at least")
    _require_possible(wanted, limit=limit, pool=pool)
    return wanted


def capacity_of_grown(*, current: int, required: int, limit: int, pool: int) -> int:
    """The capacity after an expansion: never less than it is."""
    wanted = max(current, required)
    _require_possible(wanted, limit=limit, pool=pool)
    return wanted


def fits(capacity: int, *, required: int, limit: int) -> bool:
    """Whether an existing capacity is what a request asks for."""
    return required <= capacity and (not limit or capacity <= limit)


def _require_possible(wanted: int, *, limit: int, pool: int) -> None:
    if limit and wanted > limit:
        raise out_of_range(f"{wanted} bytes are needed but the limit is {limit}")
    if wanted > pool:
        raise out_of_range(f"{wanted} bytes are more than the whole pool of {pool}: enlarge the pool first")
