"""Certificates and tokens: what is made, kept, renewed and refused.

The proof that a certificate is right is a TLS handshake that verifies it.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.kit import clock
from holdfast.server import pki


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _names(path: Path) -> set[str]:
    cert = x509.load_pem_x509_certificate(path.read_bytes())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return {*names.get_values_for_type(x509.DNSName), *map(str, addresses)}


def _handshake(made: pki.Pki, host: str, authority: bytes) -> None:
    """Connect to a TLS server with the pair, as a client that trusts ``authority``."""
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_cert, made.server_key)

    def serve() -> None:
        with theirs:
            try:
                context.wrap_socket(theirs, server_side=True).close()
            except (ssl.SSLError, OSError):
                return

    server = threading.Thread(target=serve)
    server.start()
    try:
        client = ssl.create_default_context(cadata=authority.decode())
        with ours, client.wrap_socket(ours, server_hostname=host):
            pass
    finally:
        server.join()


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc", "10.1.2.3", "api.example"]
)
def test_clients_accept_the_server_by_all_its_names(tmp_path: Path, host: str) -> None:
    made = pki.ensure(tmp_path / "pki", ["10.1.2.3", "API.example"])
    _handshake(made, host, made.authority)


def test_clients_refuse_a_name_that_is_not_in_the_certificate(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(made, "other.example", made.authority)


def test_clients_of_another_authority_refuse_the_server(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path / "one")
    other = pki.ensure(tmp_path / "two")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(made, "localhost", other.authority)


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path / "pki")
    assert _mode(tmp_path / "pki") == 0o700
    for name in ("ca.key", "server.key", "tokens"):
        assert _mode(tmp_path / "pki" / name) == 0o600
    assert made.admin.token not in repr(made)


def test_a_second_start_keeps_everything(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = pki.ensure(tmp_path)
    assert second == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_address_renews_the_server_but_not_the_authority(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path)
    assert "192.0.2.7" not in _names(first.server_cert)
    second = pki.ensure(tmp_path, ["192.0.2.7"])
    assert "192.0.2.7" in _names(second.server_cert)
    assert second.authority == first.authority
    _handshake(second, "192.0.2.7", first.authority)


def test_an_address_for_all_interfaces_is_no_name(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path, ["0.0.0.0", "::"])
    assert not {"0.0.0.0", "::"} & _names(made.server_cert)
    assert all(not _is_unspecified(name) for name in _names(made.server_cert))


def _is_unspecified(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


def test_the_server_is_renewed_before_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pki.ensure(tmp_path)
    old = first.server_cert.read_bytes()
    later = clock.now() + datetime.timedelta(days=650)
    monkeypatch.setattr(clock, "now", lambda: later)
    second = pki.ensure(tmp_path)
    assert second.server_cert.read_bytes() != old
    assert second.authority == first.authority
    cert = x509.load_pem_x509_certificate(second.server_cert.read_bytes())
    assert cert.not_valid_after_utc > later + datetime.timedelta(days=700)


def test_an_expiring_authority_is_replaced_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pki.ensure(tmp_path)
    later = clock.now() + datetime.timedelta(days=3600)
    monkeypatch.setattr(clock, "now", lambda: later)
    second = pki.ensure(tmp_path)
    assert second.authority != first.authority
    server = x509.load_pem_x509_certificate(second.server_cert.read_bytes())
    server.verify_directly_issued_by(x509.load_pem_x509_certificate(second.authority))


@pytest.mark.parametrize("lost", ["ca.crt", "ca.key", "server.crt", "server.key"])
def test_a_lost_file_is_made_again_and_the_chain_holds(tmp_path: Path, lost: str) -> None:
    pki.ensure(tmp_path)
    (tmp_path / lost).unlink()
    made = pki.ensure(tmp_path)
    _handshake(made, "localhost", made.authority)


def test_a_key_of_another_certificate_is_not_used(tmp_path: Path) -> None:
    pki.ensure(tmp_path / "one")
    pki.ensure(tmp_path / "two")
    (tmp_path / "one" / "server.key").write_bytes((tmp_path / "two" / "server.key").read_bytes())
    made = pki.ensure(tmp_path / "one")
    _handshake(made, "localhost", made.authority)


def test_a_damaged_key_is_named_and_left_alone(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    (tmp_path / "ca.key").write_bytes(b"garbage")
    with pytest.raises(pki.PkiError, match=r"ca\.key .* is damaged: remove both"):
        pki.ensure(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() == b"garbage"


def test_the_first_token_is_the_administrators(tmp_path: Path) -> None:
    admin = pki.ensure(tmp_path).admin
    assert (admin.user, admin.groups) == ("kubernetes-admin", ("system:masters",))
    assert len(admin.token) >= 40


def test_a_start_makes_tokens_for_the_reader_and_each_node(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path, nodes=("a", "b")).tokens
    assert [(token.user, token.groups) for token in made] == [
        ("kubernetes-admin", ("system:masters",)),
        ("holdfast:view", ("holdfast:readers",)),
        ("system:node:a", ("system:nodes",)),
        ("system:node:b", ("system:nodes",)),
    ]
    assert len({token.token for token in made}) == 4
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o600
    assert pki.ensure(tmp_path, nodes=("a", "b")).tokens == made
    assert pki.ensure(tmp_path, nodes=("a", "b", "c")).tokens[:-1] == made
    assert pki.read_tokens(tmp_path)[:-1] == made


def test_the_tokens_of_an_older_data_directory_stay_and_the_new_ones_come(tmp_path: Path) -> None:
    older = 'first,admin,admin,"system:masters"\nsecond,app,u-2,"team"'
    (tmp_path / "tokens").write_text(older)
    found = pki.ensure(tmp_path, nodes=("a",)).tokens
    assert found[0] == pki.Token(
        "first", "kubernetes-admin", "kubernetes-admin", ("system:masters",)
    )
    assert found[1] == pki.Token("second", "app", "u-2", ("team",))
    assert [token.user for token in found[2:]] == ["holdfast:view", "system:node:a"]


def test_tokens_added_by_hand_are_read(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    with (tmp_path / "tokens").open("a") as stream:
        stream.write('secret,viewer,u-2,"readers,guests"\n\nplain,app,u-3\n')
    _, _, viewer, app = pki.ensure(tmp_path).tokens
    assert viewer == pki.Token("secret", "viewer", "u-2", ("readers", "guests"))
    assert app == pki.Token("plain", "app", "u-3", ())


def test_a_broken_token_line_is_named_without_its_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("hush-hush,\n")
    with pytest.raises(pki.PkiError, match="tokens, line 1: write token,user") as caught:
        pki.ensure(tmp_path)
    assert "hush-hush" not in str(caught.value)


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    with pytest.raises(pki.PkiError, match="has no token"):
        pki.ensure(tmp_path)


def test_a_token_file_others_can_read_is_closed(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    (tmp_path / "tokens").chmod(0o644)
    pki.ensure(tmp_path)
    assert _mode(tmp_path / "tokens") == 0o600
