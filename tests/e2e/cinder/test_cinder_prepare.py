"""`holdfast prepare openstack` against a real Keystone: what it makes works, once, and can go."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from holdfast.backends import errors
from holdfast.backends.cinder import settings
from holdfast.backends.cinder.backend import CinderBackend
from holdfast.backends.protocol import VolumeRequest
from servers.openstack import catalog
from servers.openstack.cloud import Cloud

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]


def prepare(
    cloud: Cloud, *arguments: str, login: tuple[str, ...] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as the plain member."""
    program = "from holdfast.cli.prepare.openstack import command; command()"
    if login is None:
        login = ("--clouds-yaml", str(cloud.clouds_yaml), "--cloud", "k8s")
    return subprocess.run(
        [sys.executable, "-c", program, *login, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path), "HOME": "/nonexistent"},
    )


async def test_a_login_is_made_used_refused_twice_and_taken_back(
    openstack_cloud: Cloud, new_backend: Callable[..., CinderBackend], tmp_path: Path
) -> None:
    conf = tmp_path / "etc/cloud.conf"
    where = ("--conf", str(conf), "--name", "test-prepare", "--type", "file")

    tried = prepare(openstack_cloud, *where, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert "would make: application credential" in tried.stderr
    assert not conf.exists() and not credentials(openstack_cloud)

    made = prepare(openstack_cloud, *where, "--show-secrets")
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    secret, kind = yaml.safe_load_all(made.stdout)
    assert base64.b64decode(secret["data"]["cloud.conf"]).decode() == conf.read_text()
    assert kind["parameters"] == {"type": "file"}
    backend = new_backend(cloud_conf=str(conf))
    volume = await backend.create_volume(VolumeRequest("prepared", 1 << 30, kind["parameters"]))
    await backend.delete_volume(volume.id)

    again = prepare(openstack_cloud, "--conf", f"{conf}-2", "--name", "test-prepare")
    assert again.returncode != 0
    assert "does not show its secret again" in again.stderr.replace("\n", " ")
    assert "is there already" in prepare(openstack_cloud, *where).stderr

    # The login that was made is for volumes, not for making others.
    own = ("--cloud-conf", str(conf), "--conf", f"{conf}-3", "--name", "test-other")
    refused = prepare(openstack_cloud, *own, login=())
    assert refused.returncode != 0
    assert "log in with a user and password" in refused.stderr.replace("\n", " ")

    kept = prepare(openstack_cloud, "--name", "test-prepare", "--remove", "--dry-run")
    assert "would be removed" in kept.stderr
    assert credentials(openstack_cloud) == ["test-prepare"]
    gone = prepare(openstack_cloud, "--name", "test-prepare", "--remove")
    assert "removed" in gone.stderr, gone.stderr
    assert not credentials(openstack_cloud)
    with pytest.raises(errors.Unauthorized):
        await new_backend(cloud_conf=str(conf)).list_volumes()


async def test_the_new_login_goes_the_way_of_the_old_one(
    openstack_cloud: Cloud, tmp_path: Path
) -> None:
    found = yaml.safe_load(openstack_cloud.clouds_yaml.read_text())
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    found["clouds"]["k8s"] |= {"cacert": str(authority), "interface": "internal"}
    mine = tmp_path / "clouds.yaml"
    mine.write_text(yaml.safe_dump(found))
    login = ("--clouds-yaml", str(mine), "--cloud", "k8s")
    conf = tmp_path / "cloud.conf"
    made = prepare(openstack_cloud, "--conf", str(conf), "--name", "test-way", login=login)
    assert made.returncode == 0, made.stderr
    read = settings.of_conf(conf.read_text(), "cloud.conf").arguments
    assert (read["cacert"], read["interface"]) == (str(authority), "internal")
    prepare(openstack_cloud, "--name", "test-way", "--remove")


async def test_no_login_is_made_that_could_not_be_kept(
    openstack_cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    made = prepare(openstack_cloud, "--conf", f"{tmp_path}/file/cloud.conf", "--name", "test-lost")
    assert made.returncode != 0
    assert "nothing can be written there" in made.stderr.replace("\n", " ")
    assert not credentials(openstack_cloud)
    for few in ((), ("--clouds-yaml", str(openstack_cloud.clouds_yaml)), ("--cloud", "k8s")):
        refused = prepare(openstack_cloud, login=few)
        assert refused.returncode == 2 and "--clouds-yaml FILE and --cloud" in refused.stderr


async def test_secrets_are_hidden_unless_asked_for(openstack_cloud: Cloud, tmp_path: Path) -> None:
    conf = tmp_path / "cloud.conf"
    made = prepare(openstack_cloud, "--conf", str(conf), "--name", "test-hidden")
    assert made.returncode == 0, made.stderr
    line = next(each for each in conf.read_text().splitlines() if "-secret" in each)
    value = line.partition("=")[2].strip()
    encoded = base64.b64encode(conf.read_bytes()).decode()
    for text in (made.stdout, made.stderr):
        assert value not in text and encoded not in text
    prepare(openstack_cloud, "--name", "test-hidden", "--remove")


def credentials(cloud: Cloud) -> list[str]:
    """The application credentials of these tests that Keystone has."""
    with catalog.connected(cloud.ports, admin=False) as member:
        user = member.session.get_user_id()
        found = member.identity.application_credentials(user)
        return [each.name for each in found if each.name.startswith("test-")]
