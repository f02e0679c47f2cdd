"""Users of vCenters from Secrets of an API: asked for in threads, read on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.secretrefs import SecretRef
from holdfast.backends.vsphere import cloudconf, node_side, secretlogins
from holdfast.backends.vsphere.backend import VsphereBackend
from holdfast.backends.vsphere.configuration import Center, Credentials, Tags
from holdfast.backends.vsphere.secretlogins import SecretLogins
from holdfast.server import systems

REF = SecretRef("kube-system", "vcc")
CENTER = Center("vc", secret=REF)
CONF = '[Global]\nsecret-name = "vcc"\n[VirtualCenter "vc"]\n'


async def given(ref: SecretRef) -> Mapping[str, str]:
    assert ref == REF
    return {"vc.username": "k8s", "vc.password": "k8S!@Vcp123"}


def logins() -> SecretLogins:
    made = SecretLogins()
    made.use(given)
    made.enter(asyncio.get_running_loop())
    return made


async def test_a_thread_gets_what_the_loop_reads() -> None:
    read = logins().reader(CENTER)
    assert await asyncio.to_thread(read) == Credentials("k8s", "k8S!@Vcp123")


async def test_the_loop_itself_is_refused_and_does_not_wait_for_itself() -> None:
    with pytest.raises(errors.Unavailable, match="event loop"):
        logins().reader(CENTER)()


async def test_an_api_that_does_not_answer_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(ref: SecretRef) -> Mapping[str, str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    monkeypatch.setattr(secretlogins, "PATIENCE", 0.05)
    made = logins()
    made.use(never)
    with pytest.raises(errors.Unavailable, match="kube-system/vcc"):
        await asyncio.to_thread(made.reader(CENTER))


async def test_without_an_api_or_a_secret_the_files_own_user_counts() -> None:
    fixed = Credentials("u", "p")
    without = Center("vc", credentials=lambda: fixed)
    assert logins().reader(without)() is fixed
    named = cloudconf.parse(CONF, "vsphere.conf", "main", Tags()).home
    assert named.secret == REF
    with pytest.raises(errors.Unauthorized, match="no Kubernetes API"):
        SecretLogins().reader(named)()
    both = CONF.replace("[Virtual", "user = u\npassword = p\n[Virtual")
    assert cloudconf.parse(both, "vsphere.conf", "main", Tags()).home.secret is None


async def test_what_is_opened_reads_secrets_by_what_the_process_has(tmp_path: Path) -> None:
    conf = tmp_path / "vsphere.conf"
    conf.write_text(CONF)
    instances = {"vsphere": {"main": {"config": str(conf)}}}
    backends = systems.Backends(tmp_path, instances, {}, given)
    sides = systems.NodeSides(tmp_path, instances, {}, given)
    try:
        backend, side = backends.open("vsphere"), sides["vsphere"]
        assert isinstance(backend, VsphereBackend)
        assert isinstance(side, node_side.VsphereNodeSide)
        link = backend.gateway.link()
        found = await backend.gateway.run(lambda link: link.session.credentials(), link)
        assert found == Credentials("k8s", "k8S!@Vcp123")
    finally:
        await sides.close()
        await backends.close()
