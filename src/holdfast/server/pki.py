"""Certificates and tokens of one data directory, made at its first start.

An authority (EC P-256, ten years) signs the server's certificate (two years).
The server's is made anew when it nears its end, when it lacks a name it is
reached by, or when it was not signed by the authority on disk. The
authority itself stays as long as it can: clients hold copies of it.

Tokens are kept in the form of Kubernetes' static token file, one line each:
``token,user,uid,"group1,group2"``. A start writes those that are missing: the
administrator's, which is the first, the reader's, and one for each node.

Invariant: every private key and token is in a file of mode 0600 inside a
directory of mode 0700, and appears in no log line and no error.
"""

from __future__ import annotations

import csv
import datetime
import io
import ipaddress
import logging
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.kit import clock, files

log = logging.getLogger("holdfast.server")

_AUTHORITY_LIFE = datetime.timedelta(days=3653)
_SERVER_LIFE = datetime.timedelta(days=730)
_RENEW_BEFORE = datetime.timedelta(days=90)
# Machines that talk to each other disagree about the time by some minutes.
_SKEW = datetime.timedelta(minutes=10)
_ALWAYS = (
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
)


class PkiError(Exception):
    """A key, certificate or token file that cannot be used: which, why, what to do."""


ADMIN = "kubernetes-admin"
VIEWER = "holdfast:view"
# What the administrator was called by those who made the file before there were others.
_FORMER_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and who it stands for."""

    token: str
    user: str
    uid: str
    groups: tuple[str, ...]

    def __repr__(self) -> str:
        """Show the user only; the token is a secret."""
        return f"Token(user={self.user!r})"


@dataclass(frozen=True, slots=True)
class Pki:
    """What the server presents, what clients trust, and who may come in."""

    authority: bytes  # PEM certificate
    server_cert: Path
    server_key: Path
    tokens: tuple[Token, ...]

    @property
    def admin(self) -> Token:
        """Give the administrator's token, the one the kubeconfig carries."""
        return self.tokens[0]


@dataclass(frozen=True, slots=True)
class _Pair:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(directory: Path, hosts: Iterable[str] = (), nodes: Iterable[str] = ()) -> Pki:
    """Give the certificates and tokens in ``directory``, making what is missing or outdated.

    ``hosts`` are names and addresses the server is reached by, besides this
    machine's name, loopback and Kubernetes' own service names; ``nodes`` are the
    nodes that get a token each. Raises PkiError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _ensure_authority(directory)
        _ensure_server(directory, authority, _names(hosts))
        tokens = _ensure_tokens(directory / "tokens", nodes)
    except OSError as error:
        raise PkiError(f"cannot use {error.filename or directory}: {error.strerror}") from error
    return Pki(
        authority.cert.public_bytes(serialization.Encoding.PEM),
        directory / "server.crt",
        directory / "server.key",
        tokens,
    )


def _names(hosts: Iterable[str]) -> list[str]:
    wildcards = {"", "0.0.0.0", "::"}
    chosen = [*_ALWAYS, socket.gethostname(), *(host for host in hosts if host not in wildcards)]
    return list(dict.fromkeys(name.lower() for name in chosen if name))


def _ensure_authority(directory: Path) -> _Pair:
    existing = _load(directory, "ca")
    if existing and _lasts(existing.cert):
        return existing
    if existing or (directory / "ca.crt").exists():
        log.warning("certificate authority made anew: copies of the old kubeconfig stop working")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast authority")])
    cert = (
        _builder(name, name, key.public_key(), _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _store(directory, "ca", _Pair(cert, key))


def _ensure_server(directory: Path, authority: _Pair, names: list[str]) -> None:
    existing = _load(directory, "server")
    if (
        existing
        and _lasts(existing.cert)
        and _signed_by(existing.cert, authority.cert)
        and set(names) <= _covered(existing.cert)
    ):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast")])
    cert = (
        _builder(subject, authority.cert.subject, key.public_key(), _SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    _store(directory, "server", _Pair(cert, key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = clock.now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _covered(cert: x509.Certificate) -> set[str]:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = names.get_values_for_type(x509.IPAddress)
    return {*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)}


def _lasts(cert: x509.Certificate) -> bool:
    return cert.not_valid_after_utc - clock.now() > _RENEW_BEFORE


def _signed_by(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(directory: Path, stem: str) -> _Pair | None:
    """Read a certificate and its key; None unless both exist and belong together."""
    cert_path, key_path = directory / f"{stem}.crt", directory / f"{stem}.key"
    if not (cert_path.exists() and key_path.exists()):
        return None
    try:
        cert = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except ValueError as error:
        raise PkiError(
            f"{cert_path} or {key_path.name} beside it is damaged: "
            "remove both and start again to get new ones"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or cert.public_key() != key.public_key():
        return None
    return _Pair(cert, key)


def _store(directory: Path, stem: str, pair: _Pair) -> _Pair:
    """Write the key before the certificate; a crash between them leaves a pair `_load` refuses."""
    key = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    files.write_atomic(directory / f"{stem}.key", key, mode=0o600)
    files.write_atomic(
        directory / f"{stem}.crt",
        pair.cert.public_bytes(serialization.Encoding.PEM),
        mode=0o644,
    )
    return pair


def node_user(name: str) -> str:
    """Give the user that a node is."""
    return f"system:node:{name}"


def read_tokens(directory: Path) -> tuple[Token, ...]:
    """Give the tokens there are, without making any; raises PkiError."""
    path = directory / "tokens"
    try:
        return _read_tokens(path) if path.exists() else ()
    except OSError as error:
        raise PkiError(f"cannot read {path}: {error.strerror}") from error


def _ensure_tokens(path: Path, nodes: Iterable[str]) -> tuple[Token, ...]:
    text = path.read_text("utf-8") if path.exists() else ""
    if path.exists():
        path.chmod(0o600)
        known = _read_tokens(path)
        if not known:
            raise PkiError(f"{path} has no token: remove it and start again to get a new one")
        if (known[0].user, known[0].uid) == (_FORMER_ADMIN, _FORMER_ADMIN):
            former = f",{_FORMER_ADMIN},{_FORMER_ADMIN},"
            text = text.replace(former, f",{ADMIN},{ADMIN},", 1)
    else:
        known = ()
        text = _line(ADMIN, "system:masters")
    wanted = {VIEWER: "holdfast:readers"} | {node_user(name): "system:nodes" for name in nodes}
    users = {token.user for token in known}
    missing = [_line(user, group) for user, group in wanted.items() if user not in users]
    if text and not text.endswith("\n"):
        text += "\n"
    content = (text + "".join(missing)).encode()
    if not path.exists() or content != path.read_bytes():
        files.write_atomic(path, content, mode=0o600)
    return _read_tokens(path)


def _line(user: str, group: str) -> str:
    return f'{secrets.token_urlsafe(32)},{user},{user},"{group}"\n'


def _read_tokens(path: Path) -> tuple[Token, ...]:
    tokens = []
    for number, row in enumerate(csv.reader(io.StringIO(path.read_text("utf-8"))), start=1):
        if not row:
            continue
        if len(row) not in (3, 4) or not all(row[:3]):
            raise PkiError(f'{path}, line {number}: write token,user,uid,"group1,group2"')
        groups = tuple(filter(None, row[3].split(","))) if len(row) == 4 else ()
        tokens.append(Token(row[0], row[1], row[2], groups))
    return tuple(tokens)
