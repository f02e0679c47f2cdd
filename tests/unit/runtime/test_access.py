"""Kubeconfig files and service accounts: what is read, and what is said when it cannot be."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.runtime import access


def pair() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), secret


CERTIFICATE, KEY = pair()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def kubeconfig(directory: Path, user: dict[str, Any], **cluster: Any) -> Path:
    path = directory / "config"
    named = {"server": "https://10.0.0.1:6443", **cluster}
    document = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "storage"}}
        ],
        "clusters": [{"name": "c", "cluster": named}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_token_and_an_authority_are_read(tmp_path: Path) -> None:
    path = kubeconfig(
        tmp_path, {"token": "s3cret"}, **{"certificate-authority-data": encoded(CERTIFICATE)}
    )
    found = access.from_kubeconfig(path)
    assert (found.url, found.namespace) == ("https://10.0.0.1:6443", "storage")
    assert found.token is not None and found.token() == "s3cret"
    assert found.context is not None and found.context.cert_store_stats()["x509"] == 1
    assert "s3cret" not in repr(found)


def test_client_certificates_leave_no_file_behind(tmp_path: Path) -> None:
    (tmp_path / "client.key").write_bytes(KEY)
    user = {"client-certificate-data": encoded(CERTIFICATE), "client-key": "client.key"}
    before = set(Path("/proc/self/fd").iterdir())
    found = access.from_kubeconfig(kubeconfig(tmp_path, user))
    assert found.context is not None and found.token is None
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["client.key", "config"]


def test_a_renewed_token_is_used(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    found = access.from_kubeconfig(kubeconfig(tmp_path, {"tokenFile": "token"}))
    assert found.token is not None and found.token() == "first"
    renewed = tmp_path / "new"
    renewed.write_text("second\n")
    renewed.replace(tmp_path / "token")
    assert found.token() == "second"
    # The kubelet swaps a directory link; in between there may be nothing.
    (tmp_path / "token").unlink()
    assert found.token() == "second"


@pytest.mark.parametrize(
    ("user", "cluster", "text"),
    [
        ({"exec": {"command": "aws"}}, {}, "credentials from a program"),
        ({"client-key-data": encoded(KEY)}, {}, "needs its key"),
        ({"client-key-data": "%%"}, {}, "client-key-data is not base64"),
        ({"client-certificate": "none.pem"}, {}, "none.pem cannot be read"),
        (
            {
                "client-certificate-data": encoded(pair()[0]),
                "client-key-data": encoded(KEY),
            },
            {},
            "do not fit",
        ),
        ({}, {"certificate-authority-data": encoded(b"x")}, "is no certificate"),
        ({}, {"server": ""}, "has no server"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], text: str
) -> None:
    path = kubeconfig(tmp_path, user, **cluster)
    with pytest.raises(access.AccessError, match=text) as caught:
        access.from_kubeconfig(path)
    assert str(path) in str(caught.value)
    assert encoded(KEY) not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("token: [unclosed", "is not YAML"),
        ("just text", "has no clusters"),
        ("clusters: []\n", "has no current-context"),
        ("clusters: []\ncurrent-context: gone\n", "has no context 'gone'"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(access.AccessError, match=text):
        access.from_kubeconfig(tmp_path / "config")


def test_a_pod_uses_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(CERTIFICATE)
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "namespace").write_text("holdfast-system")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = access.in_cluster(environ, tmp_path)
    assert (found.url, found.namespace) == ("https://[fd00::1]:443", "holdfast-system")
    assert found.token is not None and found.token() == "pod-token"
    with pytest.raises(access.AccessError, match="is this a pod"):
        access.in_cluster({}, tmp_path)


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "t"})
    assert access.find(None, {"KUBECONFIG": f"{path}:/other"}).url == "https://10.0.0.1:6443"
    with pytest.raises(access.AccessError, match="cannot be read"):
        access.find(tmp_path / "none", {})
