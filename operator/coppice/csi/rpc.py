"""gRPC services from plain objects: a method per remote procedure, requests in, responses out, errors as exceptions."""

import errno
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from coppice.csi.errors import CsiError

_log = logging.getLogger(__name__)
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Polled every few seconds by kubelet and sidecars.
_QUIET = frozenset({"Probe", "NodeGetVolumeStats", "NodeGetCapabilities", "GetPluginInfo", "GetCapacity"})

Procedure = Callable[[Any], Message]


def handler(service: ServiceDescriptor, servicer: object) -> "grpc.GenericRpcHandler[Any, Any]":
    """A handler of those procedures of `service` that `servicer` has as methods: CreateVolume is create_volume.

    The others answer UNIMPLEMENTED, as the CSI specification wants of services that are not offered.
    """
    methods = {
        name: _method_handler(method, getattr(servicer, snake_case(name)))
        for name, method in service.methods_by_name.items()
        if hasattr(servicer, snake_case(name))
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def call(channel: grpc.Channel, service: ServiceDescriptor, name: str, request: Message, *, timeout: float) -> Any:
    """The response of procedure `name` of `service`; raises grpc.RpcError, also after `timeout` seconds."""
    method = service.methods_by_name[name]
    procedure = channel.unary_unary(
        f"/{service.full_name}/{name}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return procedure(request, timeout=timeout)


def snake_case(name: str) -> str:
    """The Python name of a remote procedure."""
    return _WORD.sub("_", name).lower()


def _method_handler(method: MethodDescriptor, procedure: Procedure) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(
        _answering(method.name, procedure),
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _answering(name: str, procedure: Procedure) -> Callable[[Any, grpc.ServicerContext], Message]:
    def answer(request: Message, context: grpc.ServicerContext) -> Message:
        started = time.perf_counter()
        subject = _subject(request)
        try:
            response = procedure(request)
        except CsiError as error:
            _log.info("%s %s: %s: %s", name, subject, error.code.name, error.message)
            context.abort(error.code, error.message)
        except OSError as error:
            _log.exception("%s %s failed", name, subject)
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if error.errno in _FULL else grpc.StatusCode.INTERNAL
            context.abort(code, f"{name} {subject}: {error}")
        except Exception:  # noqa: BLE001 - logged; a caller must get an answer whatever the mistake
            _log.exception("%s %s failed", name, subject)
            context.abort(grpc.StatusCode.INTERNAL, f"{name} {subject} failed: see the driver's log")
        level = logging.DEBUG if name in _QUIET else logging.INFO
        _log.log(level, "%s %s: %.1f ms", name, subject, 1000 * (time.perf_counter() - started))
        return response

    return answer


def _subject(request: Message) -> str:
    """What the request is about, for the log; never the request itself, which may carry secrets."""
    fields = ("name", "volume_id", "snapshot_id", "source_volume_id")
    return " ".join(str(value) for field in fields if (value := getattr(request, field, ""))) or "-"
