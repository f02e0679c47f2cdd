"""What the tests of client libraries share: a class whose volumes need no root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import machine


@pytest.fixture(scope="module")
def cluster(shared: machine.Machine) -> Iterator[machine.Machine]:
    """A Holdfast that runs, with a class `plain` of plain directories."""
    shared.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "plain"},
            "provisioner": "local.holdfast.dev",
            "parameters": {"layout": "directory"},
        }
    )
    yield shared
