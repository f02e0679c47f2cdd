"""How to reach a cluster's API: from a kubeconfig file, or from inside a pod.

Both give an `Access`: a URL, a TLS context and something that knows the bearer token. Tokens of
service accounts are renewed by the kubelet about every hour, so a token that stands in a file is
read again when the file changes.

Invariant: no error and no representation of an `Access` holds a token or a key.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from holdfast.runtime.http import HttpClient

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
VARIABLE = "KUBECONFIG"


class AccessError(Exception):
    """There is no way to the cluster: what is missing, in which file, and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """A way to one API server; `namespace` is the one to use where none is named."""

    url: str
    context: ssl.SSLContext | None = field(default=None, repr=False)
    token: Callable[[], str] | None = field(default=None, repr=False)
    namespace: str = "default"

    def client(self, timeout: float = 30.0) -> HttpClient:
        """Return a client with connections of its own."""
        return HttpClient(self.url, token=self.token, ca=self.context, timeout=timeout)


class TokenFile:
    """The token in a file, read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """Return the token as it is now. Raises AccessError when there is none."""
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino
            if stamp != self._stamp:
                self._token, self._stamp = self._path.read_text(encoding="ascii").strip(), stamp
        except (OSError, UnicodeDecodeError) as error:
            if not self._token:
                raise AccessError(f"{self._path}: the token cannot be read: {error}") from error
        return self._token


def find(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Access:
    """Return the access that kubectl would use here: a file, else the pod's own.

    In order: `path`, the first file of $KUBECONFIG, the pod's service account, ~/.kube/config.
    """
    if path is not None:
        return from_kubeconfig(path)
    if named := environ.get(VARIABLE, "").split(":")[0]:
        return from_kubeconfig(Path(named))
    if (SERVICE_ACCOUNT / "token").exists():
        return in_cluster(environ)
    usual = Path("~/.kube/config").expanduser()
    if usual.exists():
        return from_kubeconfig(usual)
    raise AccessError(
        f"there is no cluster to talk to: give --kubeconfig, set {VARIABLE}, or run in a pod "
        "that has a service account"
    )


def in_cluster(
    environ: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT
) -> Access:
    """Return the access of the pod's service account."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise AccessError("KUBERNETES_SERVICE_HOST and _PORT are not set: is this a pod?")
    try:
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    except (OSError, ssl.SSLError) as error:
        raise AccessError(f"{directory / 'ca.crt'}: cannot be read: {error}") from error
    namespace = directory / "namespace"
    return Access(
        f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        context,
        TokenFile(directory / "token"),
        namespace.read_text().strip() if namespace.exists() else "default",
    )


def from_kubeconfig(path: Path, context: str | None = None) -> Access:
    """Return the access of a context of the file, the current one unless it is named.

    Raises AccessError; credential plug-ins (`exec`, `auth-provider`) are not run.
    """
    document = _document(path)
    name = context or document.get("current-context")
    if not name:
        raise AccessError(f"{path}: has no current-context: name one")
    chosen = _entry(path, document, "context", str(name))
    cluster = _entry(path, document, "cluster", str(chosen.get("cluster", "")))
    user = _entry(path, document, "user", str(chosen["user"])) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise AccessError(f"{path}: cluster {chosen.get('cluster')} has no server")
    for plugin in ("exec", "auth-provider"):
        if plugin in user:
            raise AccessError(
                f"{path}: user {chosen['user']} gets its credentials from a program ({plugin}), "
                "which is not run here: use a token or a client certificate"
            )
    return Access(
        str(cluster["server"]).rstrip("/"),
        _tls(path, cluster, user),
        _token(path, user),
        str(chosen.get("namespace") or "default"),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AccessError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        # The parser's text may quote the file, which holds credentials.
        raise AccessError(f"{path}: is no kubeconfig: it is not YAML") from error
    if not isinstance(document, dict) or not isinstance(document.get("clusters"), list):
        raise AccessError(f"{path}: is no kubeconfig: it has no clusters")
    return document


def _entry(path: Path, document: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in document.get(f"{kind}s") or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(kind)
            if isinstance(found, dict):
                return found
    raise AccessError(f"{path}: has no {kind} {name!r}")


def _token(path: Path, user: Mapping[str, Any]) -> Callable[[], str] | None:
    if user.get("tokenFile"):
        return TokenFile(path.parent / str(user["tokenFile"]))
    if user.get("token"):
        token = str(user["token"])
        return lambda: token
    return None


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext | None:
    if str(cluster["server"]).startswith("http://"):
        return None
    authority = _content(path, cluster, "certificate-authority")
    try:
        context = ssl.create_default_context(
            cadata=authority.decode("ascii") if authority else None
        )
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise AccessError(f"{path}: the certificate authority is no certificate") from error
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = (_content(path, user, part) for part in ("client-certificate", "client-key"))
    if certificate and key:
        _load_pair(path, context, certificate, key)
    elif certificate or key:
        raise AccessError(f"{path}: a client certificate needs its key, and a key its certificate")
    return context


def _content(path: Path, entry: Mapping[str, Any], key: str) -> bytes:
    """Return what an entry holds itself (`KEY-data`) or names a file for (`KEY`)."""
    if data := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error as error:
            raise AccessError(f"{path}: {key}-data is not base64") from error
    if not entry.get(key):
        return b""
    file = path.parent / str(entry[key])
    try:
        return file.read_bytes()
    except OSError as error:
        raise AccessError(f"{path}: {key}: {file} cannot be read: {error.strerror}") from error


def _load_pair(path: Path, context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL reads pairs from files only; a file in memory is gone with its descriptor.
    with _in_memory(certificate) as first, _in_memory(key) as second:
        try:
            context.load_cert_chain(first, second)
        except ssl.SSLError as error:
            raise AccessError(f"{path}: the client certificate and key do not fit") from error


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("holdfast-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
