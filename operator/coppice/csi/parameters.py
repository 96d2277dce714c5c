"""The parameters of a StorageClass, checked: a misspelt one is refused, not ignored."""

from collections.abc import Mapping
from dataclasses import dataclass

from coppice.core.quantities import quantity_bytes
from coppice.csi.errors import invalid_argument

_SIDECAR_PREFIX = "csi.storage.k8s.io/"  # csi-provisioner --extra-create-metadata: names for logs, not for us
_KNOWN = ("ownBytes", "ownBytesHeadroom", "uid", "gid", "mode")
_MAX_ID = 2**32 - 2
_MAX_MODE = 0o7777
_DEFAULT_HEADROOM = 64 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Owner and mode of a new volume's root directory.

    The default lets every user of the Pod write, whatever its uid and groups. No sticky bit: with it, the sysctl
    fs.protected_regular would keep even root from opening others' files with O_CREAT.
    """

    uid: int = 0
    gid: int = 0
    mode: int = 0o777


@dataclass(frozen=True, kw_only=True)
class ClassParameters:
    """What a StorageClass says: bytes a copy may write by itself (None: unbounded), and the owner of new volumes."""

    own_bytes: int | None = None
    own_bytes_headroom: int = _DEFAULT_HEADROOM
    owner: Owner = Owner()


def parse(parameters: Mapping[str, str]) -> ClassParameters:
    """Read the parameters of a StorageClass; raises INVALID_ARGUMENT naming the first wrong one."""
    refuse_unknown(parameters, known=_KNOWN)
    own_bytes = parameters.get("ownBytes")
    headroom = parameters.get("ownBytesHeadroom")
    return ClassParameters(
        own_bytes=None if own_bytes is None else _bytes("ownBytes", own_bytes),
        own_bytes_headroom=_DEFAULT_HEADROOM if headroom is None else _bytes("ownBytesHeadroom", headroom),
        owner=Owner(
            uid=_integer("uid", parameters.get("uid", "0"), base=10, most=_MAX_ID),
            gid=_integer("gid", parameters.get("gid", "0"), base=10, most=_MAX_ID),
            mode=_integer("mode", parameters.get("mode", "0777"), base=8, most=_MAX_MODE),
        ),
    )


def refuse_unknown(parameters: Mapping[str, str], *, known: tuple[str, ...] = ()) -> None:
    """Raise INVALID_ARGUMENT naming a class parameter that is neither ours nor a sidecar's."""
    for key in parameters:
        if not key.startswith(_SIDECAR_PREFIX) and key not in known:
            raise invalid_argument(f"unknown class parameter {key!r}; known ones: {', '.join(known) or 'none'}")


def _bytes(name: str, text: str) -> int:
    try:
        number = quantity_bytes(text)
    except ValueError as error:
        raise invalid_argument(f"class parameter {name}: {error}") from error
    if number < 0:
        raise invalid_argument(f"class parameter {name}: {text!r} is negative")
    return number


def _integer(name: str, text: str, *, base: int, most: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        highest = f"{most:o}" if base == 8 else str(most)
        raise invalid_argument(f"class parameter {name}: {text!r} is not a number from 0 to {highest}")
    return number
