"""A client of CSI sockets: every call of a service as a method, made from the descriptors.

    with csiclient.connect(path) as csi:
        csi.controller.CreateVolume(csi_pb2.CreateVolumeRequest(name="a", ...))

A failed call raises `grpc.RpcError` with `code()` and `details()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor

from holdfast.csi.wire import csi_pb2, pluginregistration_pb2

SECONDS = 30.0


class Service:
    """The calls of one service."""

    def __init__(self, channel: grpc.Channel, service: ServiceDescriptor) -> None:
        self._channel = channel
        self._service = service

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a call; it takes the request, and `timeout` in seconds."""
        method = self._service.methods_by_name[name]
        call = self._channel.unary_unary(
            f"/{self._service.full_name}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )

        def answered(request: Any, timeout: float = SECONDS) -> Any:
            return call(request, timeout=timeout)

        setattr(self, name, answered)
        return answered


class Client:
    """The services at one socket."""

    def __init__(self, channel: grpc.Channel) -> None:
        found = csi_pb2.DESCRIPTOR.services_by_name
        self.identity = Service(channel, found["Identity"])
        self.controller = Service(channel, found["Controller"])
        self.node = Service(channel, found["Node"])
        registration = pluginregistration_pb2.DESCRIPTOR.services_by_name["Registration"]
        self.registration = Service(channel, registration)


@contextlib.contextmanager
def connect(path: Path) -> Iterator[Client]:
    """Talk to the socket at `path`."""
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        yield Client(channel)
