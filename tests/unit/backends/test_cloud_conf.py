"""cloud.conf and the configuration's sections: what they may say, and what errors tell."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.cinder import settings

# As in a published guide, with its blanks; the password holds signs that begin comments.
GUIDE = """
[Global]
username = ArcherAdmin
password = Archer#Admin;@123
domain-name = Default
auth-url = http://172.118.23.20:45357/v3
tenant-id = ad88dd5d24ce4e2189a6ae7491c33e9d
region = RegionOne
[Metadata]
search-order = configDrive,metadataService
"""


def test_a_published_cloud_conf_is_read_as_it_is() -> None:
    read = settings.of_conf(GUIDE, "cloud.conf")
    assert read.arguments["auth"] == {
        "auth_url": "http://172.118.23.20:45357/v3",
        "username": "ArcherAdmin",
        "password": "Archer#Admin;@123",
        "user_domain_name": "Default",
        "project_id": "ad88dd5d24ce4e2189a6ae7491c33e9d",
    }
    assert read.arguments["region_name"] == "RegionOne"
    assert read.search_order == ("configDrive", "metadataService")
    assert "Archer" not in repr(read)


def test_one_of_several_clouds_in_a_file_is_chosen_by_its_name() -> None:
    text = GUIDE + '[Global "west"]\nauth-url=https://w/v3\nuser-id=u\npassword=p\ntenant-id=t\n'
    assert settings.of_conf(text, "c") == settings.of_conf(GUIDE, "c")
    west = settings.of_conf(text, "c", "west")
    assert west.arguments["auth"]["auth_url"] == "https://w/v3"
    assert west.search_order == ("configDrive", "metadataService")


def test_a_trust_says_the_project_itself() -> None:
    text = (
        "[Global]\nauth-url=http://k/v3\ntenant-id=p\ntrust-id=t\ntrustee-id=u\n"
        "trustee-password=s\n"
    )
    assert settings.of_conf(text, "c").arguments["auth"] == {
        "auth_url": "http://k/v3",
        "user_id": "u",
        "password": "s",
        "trust_id": "t",
    }


def test_what_serves_other_programs_is_skipped() -> None:
    text = GUIDE + "[LoadBalancer]\nfloating-network-id = x\n[KeyManager]\nkey-id=x\n"
    text += '[LoadBalancerClass "a"]\nz=1\n'
    assert settings.of_conf(text, "c") == settings.of_conf(GUIDE, "c")


def test_quotes_comments_and_bare_keys_are_gits() -> None:
    text = (
        '# one\n[Global]\nauth-url="http://k/v3"  # here\nuser-id=u\npassword="a \\"b\\" ; c"\n'
        "tenant-name=p\ntenant-domain-id=d\ntls-insecure\n[BlockStorage]\nignore-volume-az = yes\n"
    )
    read = settings.of_conf(text, "c")
    assert read.arguments["auth"]["password"] == 'a "b" ; c'
    assert read.arguments["auth"]["project_domain_id"] == "d"
    assert read.arguments["verify"] is False
    assert read.ignore_volume_az


def test_an_application_credential_needs_no_project() -> None:
    text = (
        "[Global]\nauth-url=http://k/v3\napplication-credential-id=i\n"
        "application-credential-secret=s\nca-file=/etc/ca.pem\n"
    )
    read = settings.of_conf(text, "c")
    assert read.arguments["auth_type"] == "v3applicationcredential"
    assert read.arguments["cacert"] == "/etc/ca.pem"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GUIDE.replace("http://", ""), "auth-url is no address"),
        (GUIDE.replace("[Global]", '[Global "west"]'), r'it has \[Global "west"\]'),
        (GUIDE + "trust-id=t\n", "unknown key trust-id"),
        ("[Global]\nauth-url=http://k\ntrust-id=t\n", "no trustee-password"),
        (GUIDE.replace("tenant-id", "tenand-id"), "did you mean tenant-id"),
        (GUIDE.replace("[Global]", "[Globel]"), r"did you mean \[Global\]"),
        (GUIDE.replace("password", "#password"), "has no password"),
        (GUIDE.replace("configDrive,", "configDisk,"), "did you mean configDrive"),
        (GUIDE + "[BlockStorage]\nbs-version=v2\n", "only version 3"),
        (GUIDE + "[BlockStorage]\nnode-volume-attach-limit=many\n", "from 1 to 256"),
        ("[Metadata]\n", r"no section \[Global\]"),
        (base64.b64encode(GUIDE.encode()).decode(), "encoded twice"),
    ],
)
def test_a_mistake_is_named_without_its_value(text: str, said: str) -> None:
    with pytest.raises(errors.Invalid, match=said) as refused:
        settings.of_conf(text, "cloud.conf")
    assert "Archer#Admin" not in str(refused.value)


def test_a_section_of_the_configuration_names_exactly_one_cloud(tmp_path: Path) -> None:
    conf = str(tmp_path / "cloud.conf")
    assert settings.instances({"a": {"cloud_conf": conf}})["a"].owner == "holdfast"
    for wrong, said in (
        ({}, "names no cloud"),
        ({"cloud_conf": conf, "cloud": "x", "clouds_yaml": conf}, "names two clouds"),
        ({"cloud": "x"}, "without clouds_yaml"),
        ({"cloud_conf": conf, "ownr": "x"}, "did you mean owner"),
        ({"cloud_conf": conf, "attach": "hand"}, "neither"),
        ({"cloud_conf": "cloud.conf"}, "not an absolute path"),
        ({"cloud_conf": 3}, "is not a string"),
    ):
        with pytest.raises(errors.Invalid, match=said):
            settings.instances({"a": wrong})


def test_a_file_that_is_replaced_has_another_stamp(tmp_path: Path) -> None:
    conf = tmp_path / "cloud.conf"
    instance = settings.Instance("a", cloud_conf=conf)
    missing = settings.stamp(instance)
    # Not `NotFound`: a volume is not gone because nobody can be asked about it.
    with pytest.raises(errors.Unavailable, match="put the file there"):
        settings.load(instance)
    # As editors of other systems begin a file.
    conf.write_text("\ufeff" + GUIDE)
    assert settings.stamp(instance) != missing
    assert settings.load(instance).arguments["region_name"] == "RegionOne"


def test_every_file_with_a_part_of_the_login_counts(tmp_path: Path) -> None:
    conf, clouds = tmp_path / "cloud.conf", tmp_path / "clouds.yaml"
    secure, authority = tmp_path / "secure.yaml", tmp_path / "ca.pem"
    authority.write_text("one")
    clouds.write_text("clouds: {openstack: {auth: {}}}")
    conf.write_text(f"[Global]\nuse-clouds=true\nclouds-file={clouds}\n")
    plain = GUIDE.replace("[Metadata]", f"ca-file = {authority}\n[Metadata]")
    (tmp_path / "plain.conf").write_text(plain)
    for instance, changing in (
        (settings.Instance("a", clouds_yaml=clouds, cloud="openstack"), secure),
        (settings.Instance("a", cloud_conf=conf), secure),
        (settings.Instance("a", cloud_conf=conf), clouds),
        (settings.Instance("a", cloud_conf=tmp_path / "plain.conf"), authority),
    ):
        read = settings.load(instance)
        before = settings.stamp(instance, read)
        assert settings.stamp(instance, read) == before
        changing.write_text("clouds: {openstack: {auth: {username: somebody-else}}}")
        assert settings.stamp(instance, read) != before
        clouds.write_text("clouds: {openstack: {auth: {}}}")
        secure.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clouds: {a: {password: hidden", "is no YAML"),
        ("- a", "has no clouds"),
        ("clouds: {a: }", "cloud a is empty"),
    ],
)
def test_a_clouds_yaml_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "clouds.yaml"
    path.write_text(text)
    with pytest.raises(errors.Invalid, match=said) as refused:
        settings.load(settings.Instance("a", clouds_yaml=path, cloud="a"))
    assert "hidden" not in str(refused.value)
