"""What the Kubernetes API can answer, as a small tree of exceptions: mapped from HTTP once, handled once."""

from __future__ import annotations

from collections.abc import Mapping


class KubeError(Exception):
    """Any answer of the API server that is not the asked-for object.

    ``status`` is the HTTP status code (0 when there was no answer), ``reason`` the machine-readable reason of the
    Status object, ``retry_after`` what the server asked to wait, in seconds.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class NotFoundError(KubeError):
    """404: no such object, or no such kind."""


class AlreadyExistsError(KubeError):
    """409 on create: the name is taken."""


class ConflictError(KubeError):
    """409 on apply, update or delete: another field manager, version or UID than expected."""


class ForbiddenError(KubeError):
    """403: RBAC or a quota says no; the message says which."""


class InvalidError(KubeError):
    """400 or 422: the API server refuses the object itself; repeating it cannot help."""


class TransientError(KubeError):
    """429, 5xx, time-outs and broken connections: the same call may succeed later."""


class WiringConflictError(KubeError):
    """Users' objects that are not to be wired, or scaled, as things stand; they are left as they are.

    ``refusals`` and ``unscaled``: the API server's words, by the object's name.
    """

    def __init__(self, refusals: Mapping[str, str], unscaled: Mapping[str, str] | None = None) -> None:
        self.refusals, self.unscaled = refusals, unscaled or {}
        said = (*self.refusals.items(), *self.unscaled.items())
        super().__init__("; ".join(f"{name}: {words}" for name, words in said), status=409)


class NameConflictError(KubeError):
    """An object of this name exists and belongs to somebody else; it is left as it is."""

    def __init__(self, kind: str, namespace: str | None, name: str) -> None:
        where = f"{namespace}/{name}" if namespace else name
        super().__init__(f"{kind} {where} exists already and belongs to something else", status=409)
        self.kind = kind
        self.namespace = namespace
        self.name = name
