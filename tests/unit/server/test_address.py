"""The listening socket: taken ports, fallback, and the URL clients get."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from holdfast.server import address, config


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_port_zero_takes_a_free_one() -> None:
    with address.bind(config.parse_listen("127.0.0.1:0")) as bound:
        port = bound.getsockname()[1]
        assert port > 0
        assert address.url_of(bound) == f"https://127.0.0.1:{port}"
        assert address.is_loopback(bound)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(taken: int) -> None:
    with pytest.raises(address.AddressError, match=f"127.0.0.1:{taken}: another program uses it"):
        address.bind(config.parse_listen(f"127.0.0.1:{taken}"))


def test_the_default_port_gives_way_to_a_free_one(taken: int) -> None:
    with address.bind(config.Listen("127.0.0.1", taken)) as bound:
        assert bound.getsockname()[1] != taken


def test_a_socket_for_all_interfaces_is_reached_over_loopback() -> None:
    with address.bind(config.parse_listen("0.0.0.0:0")) as bound:
        assert address.url_of(bound) == f"https://127.0.0.1:{bound.getsockname()[1]}"
        assert not address.is_loopback(bound)


def test_a_foreign_address_is_refused_in_words() -> None:
    with pytest.raises(address.AddressError, match="this machine has no such address"):
        address.bind(config.parse_listen("192.0.2.1:0"))


def test_an_unknown_name_is_refused_in_words() -> None:
    with pytest.raises(address.AddressError, match="give an address of this machine"):
        address.bind(config.parse_listen("no-such-host.invalid:0"))
