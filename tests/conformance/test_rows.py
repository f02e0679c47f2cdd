"""Every row against the embedded API, and against a real Kubernetes where there is one.

The second proves that the rows are right. It runs when `KUBEBUILDER_ASSETS` names a directory
with Kubernetes' programs; `tools/servers/kubernetes/build` makes one.
"""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import machine
from conformance import rows
from conformance.steps import Player
from holdfast.server import kubeconfig
from servers.kubernetes.controlplane import ASSETS, ControlPlane

ROWS = rows.read()
RUN = secrets.token_hex(2)


def _client(url: str, token: str, authority: str) -> httpx2.Client:
    return httpx2.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cadata=authority),
        trust_env=False,
        timeout=30,
    )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """The API of one `holdfast up` for all rows."""
    here = machine.Machine(tmp_path_factory.mktemp("conformance"))
    try:
        access = kubeconfig.read(here.start().kubeconfig)
        with _client(access.url, access.token, access.authority.decode()) as http:
            yield http
    finally:
        here.dispose()


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """The API of one real control plane for all rows."""
    directory = tmp_path_factory.mktemp("kubernetes")
    plane = ControlPlane(Path(os.environ[ASSETS]), directory)
    try:
        plane.start()
        with _client(plane.url, plane.token, plane.authority) as http:
            yield http
    finally:
        plane.stop()


def _play(http: httpx2.Client, row: rows.Row, quiet: float) -> None:
    name = f"{row.place}-{RUN}"
    namespace = name if row.own_namespace else "default"
    player = Player(http, name, namespace, quiet=quiet)
    try:
        if row.own_namespace:
            player.play({"create": {"ns": {}}})
        for step in row.steps:
            player.play(step)
    finally:
        # Nothing of a row may be there when another looks for a volume or a default class.
        for path in reversed(player.made):
            http.delete(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.place} {row.sentence}")
def test_the_embedded_api_does_what_the_row_says(embedded: httpx2.Client, row: rows.Row) -> None:
    """The same rows as below, against ours."""
    if row.differs:
        pytest.skip(f"a known difference: {row.differs}")
    # Its controllers act on events, so what they would do they do at once.
    _play(embedded, row, 0.4)


@pytest.mark.skipif(ASSETS not in os.environ, reason=f"{ASSETS} is not set: no real Kubernetes")
@pytest.mark.parametrize(
    "row",
    ROWS if ASSETS in os.environ else ROWS[:1],
    ids=lambda row: f"{row.place} {row.sentence}",
)
def test_a_real_kubernetes_does_what_the_row_says(kubernetes: httpx2.Client, row: rows.Row) -> None:
    """The rows are right."""
    # Here the binder looks at everything once a second.
    _play(kubernetes, row, 1.3)
