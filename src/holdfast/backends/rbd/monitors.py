"""Reads monitors' addresses as Ceph writes them, and tells whether anybody listens there."""

from __future__ import annotations

import socket

PORTS = (3300, 6789)
SECONDS = 2.0


def unreachable(monitor: str) -> str:
    """Return why no TCP connection is made, or "" when one is."""
    reason = "no address"
    for host, port in endpoints(monitor):
        try:
            with socket.create_connection((host, port), SECONDS):
                return ""
        except OSError as error:
            reason = error.strerror or str(error)
    return reason


def endpoints(monitor: str) -> list[tuple[str, int]]:
    """Read HOST, HOST:PORT, [IPv6]:PORT, and Ceph's [v2:HOST:PORT/0,v1:HOST:PORT/0]."""
    if monitor.startswith("[v"):
        parts = [part.split("/")[0] for part in monitor.strip("[]").split(",")]
        return [end for part in parts for end in endpoints(part.split(":", 1)[1])]
    host, colon, port = monitor.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        return [(host.strip("[]"), int(port))]
    return [(monitor.strip("[]"), port) for port in PORTS]
