"""gRPC services from the descriptors of the .proto files, one handler for every call.

An implementation is an object with methods named like the calls in snake case;
what it does not have is answered UNIMPLEMENTED by gRPC itself. A method takes the
request and returns the answer or raises `backends.errors`; the code, the text
and the log line are made here and nowhere else.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from holdfast.backends import errors
from holdfast.csi import faults, sanitizing

log = logging.getLogger("holdfast.csi")

Method = Callable[[Any], Awaitable[Message]]

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def handler(service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler[Any, Any]:
    """Return what serves `service` with the methods of `implementation`."""
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        call = getattr(implementation, _CAPITAL.sub("_", method.name).lower(), None)
        if call is not None:
            found[method.name] = _handler(method, call)
    return grpc.method_handlers_generic_handler(service.full_name, found)


def _handler(method: MethodDescriptor, call: Method) -> grpc.RpcMethodHandler[Any, Any]:
    request = message_factory.GetMessageClass(method.input_type)

    async def answer(message: Message, context: Any) -> Message:
        began = time.monotonic()
        try:
            result = await call(message)
        except errors.BackendError as error:
            code, text = faults.code_of(error), str(error)
            text = faults.redacted(text, sanitizing.secrets(message))
        except Exception:
            # The edge of a server: a defect is logged and named as such.
            log.exception("defect in a CSI call", extra={"call": method.name})
            code, text = grpc.StatusCode.INTERNAL, "defect in Holdfast: see its log"
        else:
            _note(method.name, message, began, "OK")
            return result
        _note(method.name, message, began, code.name, text)
        await context.abort(code, text)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request.FromString,
        response_serializer=lambda result: result.SerializeToString(),
    )


def _note(call: str, message: Message, began: float, code: str, error: str = "") -> None:
    level = logging.INFO if error else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    extra = {"call": call, "code": code, "seconds": round(time.monotonic() - began, 4)}
    if error:
        extra["error"] = error
    if log.isEnabledFor(logging.DEBUG):
        extra["request"] = sanitizing.text(message)
    log.log(level, "CSI call failed" if error else "CSI call", extra=extra)
