"""What a remote procedure call may answer instead of a result."""

import grpc


class CsiError(Exception):
    """A refusal: a gRPC status code of the CSI specification, and a message that names the object and the next step."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> CsiError:
    """The request itself is wrong; repeating it unchanged cannot succeed."""
    return CsiError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> CsiError:
    """The named volume, snapshot or path does not exist."""
    return CsiError(grpc.StatusCode.NOT_FOUND, message)


def already_exists(message: str) -> CsiError:
    """An object of this name exists and is not what was asked for."""
    return CsiError(grpc.StatusCode.ALREADY_EXISTS, message)


def out_of_range(message: str) -> CsiError:
    """The asked size cannot be had."""
    return CsiError(grpc.StatusCode.OUT_OF_RANGE, message)


def failed_precondition(message: str) -> CsiError:
    """The state of the object forbids the call until somebody changes that state."""
    return CsiError(grpc.StatusCode.FAILED_PRECONDITION, message)


def aborted(message: str) -> CsiError:
    """Another call works on the same object, or a paging token is not one of ours."""
    return CsiError(grpc.StatusCode.ABORTED, message)


def resource_exhausted(message: str) -> CsiError:
    """The pool has not enough room, or the node is not the one asked for."""
    return CsiError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def data_loss(message: str) -> CsiError:
    """The catalogue promises data that the pool does not hold."""
    return CsiError(grpc.StatusCode.DATA_LOSS, message)
