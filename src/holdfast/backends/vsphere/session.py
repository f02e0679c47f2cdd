"""One login at one vCenter, shared by all threads, that renews itself.

`Session` stands where pyVmomi expects its stub: every call of every managed object comes
through `InvokeMethod`. There the session is opened when it is needed, opened anew when
vCenter has forgotten it (it says so in a fault, and in the `missingSet` of a read), and
each call is counted by its name.

Invariant: a call is sent a second time only when vCenter cannot have acted on the first:
it refused the session, or the call only reads. Whoever else loses an answer repeats the
whole operation, and every operation here may be repeated.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import hmac
import http.client
import re
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import faults
from holdfast.backends.vsphere.configuration import Center, Credentials
from holdfast.backends.vsphere.sdk import pbm, soap, types, vim, vmodl

TIMEOUT = 60.0
CONNECTIONS = 24
# The oldest API that has all that plain disks need.
OLDEST = "6.5"
# Seconds before a user and password that were refused are tried again: vCenter locks a user
# after five failures in three minutes, and there are two ways to log in.
REFUSED = 120.0
_LOGIN_CALLS = frozenset({"Login", "Logout", "RetrieveServiceContent"})
_READS = re.compile(
    r"Retrieve|Query|Find|List|WaitForUpdates|Current|Has|Fetch|Pbm(Query|Retr|Check)"
)
_VERSION = re.compile(r"<version>([^<]+)</version>")
_COOKIE = re.compile(r'vmware_soap_session="?([^";]+)')
# What an idle connection ends with that the other side closed, above TLS and within it.
CLOSED = (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
# Sends one call by pyVmomi's transport; gives the HTTP status and the answer or the fault.
Exchange = Callable[[Any, Any, Any, Any], tuple[int, Any]]


class Session:
    """A vCenter as one user sees it. Cheap to make: nothing is opened before the first call."""

    def __init__(self, center: Center, credentials: Callable[[], Credentials]) -> None:
        self.center = center
        self.calls: collections.Counter[str] = collections.Counter()
        self.generation = 0
        self._credentials = credentials
        self._lock = threading.RLock()
        self._soap: Any = None
        self._content: Any = None
        self._pbm: Any = None
        self._transports: list[Any] = []
        self._refused: tuple[float, Credentials] | None = None
        self.version: Any = None
        self.versionId: Any = None

    def __repr__(self) -> str:
        return f"Session({self.center.name})"

    @property
    def content(self) -> Any:
        """The service content: the managers everything starts from."""
        self.login()
        return self._content

    def login(self) -> None:
        """Log in, unless that is done."""
        if self._content is None:
            with faults.translated(self.where):
                self._open(self.generation)

    @property
    def where(self) -> str:
        """How errors name this vCenter."""
        return f"vCenter {self.center.name}"

    @property
    def user(self) -> str:
        """Who is logged in."""
        return self._credentials().user

    def credentials(self) -> Credentials:
        """Return user and password as they are now.

        Raises Unauthorized when vCenter has just refused the very same.
        """
        found = self._credentials()
        if self._refused is not None and self._refused[1] == found:
            left = self._refused[0] + REFUSED - time.monotonic()
            if left > 0:
                raise errors.Unauthorized(
                    "vCenter refused user and password (InvalidLogin); so that it does not lock "
                    f"the user, they are not tried again for {left:.0f} s",
                    self.where,
                    "correct them where the configuration or the Secret has them: that counts "
                    "at once",
                )
        return found

    def refuse(self, given: Credentials) -> None:
        """Note that vCenter has refused a user and password."""
        self._refused = (time.monotonic(), given)

    def ref(self, kind: Any, moid: str) -> Any:
        """Return the managed object with this id."""
        return kind(moid, self)

    def pbm_content(self) -> Any:
        """Return the content of the policy service, which shares this login."""
        self.login()
        if self._pbm is None:
            version = types.newestVersions.GetName("pbm")
            stub = _PolicyStub(self, self._stub("/pbm", version))
            with faults.translated(self.where):
                self._pbm = pbm.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        return self._pbm

    def cookie(self) -> str:
        """Return the value of the session's cookie, for requests beside SOAP."""
        self.content  # noqa: B018 - the login has to be there first
        found = _COOKIE.search(self._soap.cookie or "")
        return found[1] if found else ""

    def context(self) -> ssl.SSLContext:
        """Return how this vCenter's certificate is checked."""
        return tls_context(self.center)

    def request(self, path: str) -> tuple[int, bytes]:
        """GET a path of the vCenter with this session; returns status and content."""
        connection = connect(self.center)
        self.calls["GET " + path.split("?")[0].split("/")[1]] += 1
        with faults.translated(self.where):
            try:
                cookie = f'vmware_soap_session="{self.cookie()}"'
                connection.request("GET", path, headers={"Cookie": cookie})
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

    def close(self) -> None:
        """Log out, if that is possible; the connections are given up in any case."""
        with self._lock:
            content = self._content
            self._content = self._pbm = None
        if content is not None:
            # vCenter forgets a session that nobody ends, so failing here costs nothing.
            with contextlib.suppress(Exception):
                content.sessionManager.Logout()
        for each in self._transports:
            each.DropConnections()

    # pyVmomi's protocol of stubs.

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:
        """Send one call; raises pyVmomi's faults and the connection's errors."""
        return self.call(self._exchange, _lost_session, mo, info, args)

    def call(
        self, exchange: Exchange, lost: Callable[[Any], bool], mo: Any, info: Any, args: Any
    ) -> Any:
        """Send one call by `exchange`; `lost` says whether its answer shows no session."""
        if info.wsdlName in _LOGIN_CALLS:
            return self._send(exchange, mo, info, args)
        if self._content is None:
            self._open(self.generation)
        generation = self.generation
        try:
            result = self._send(exchange, mo, info, args)
            if not lost(result):
                return result
        except Exception as error:
            if not isinstance(error, vim.fault.NotAuthenticated):
                raise
        self._open(generation, again=True)
        return self._send(exchange, mo, info, args)

    def InvokeAccessor(self, mo: Any, info: Any) -> Any:
        """Refuse: properties are read through the PropertyCollector, many at a time."""
        raise NotImplementedError(f"read {info.name} of {mo} through inventory.Reader")

    def _send(self, exchange: Exchange, mo: Any, info: Any, args: Any) -> Any:
        self.calls[info.wsdlName] += 1
        try:
            status, found = exchange(self._soap, mo, info, args)
        except CLOSED:
            # An idle connection may have been closed under us; only reading may be repeated.
            if not _READS.match(info.wsdlName):
                raise
            status, found = exchange(self._soap, mo, info, args)
        if status == 200:
            return found
        raise found

    def _exchange(self, transport: Any, mo: Any, info: Any, args: Any) -> tuple[int, Any]:
        status, found = transport.InvokeMethod(mo, info, args, self)
        return status, found

    def _open(self, generation: int, *, again: bool = False) -> None:
        with self._lock:
            if self._content is not None and (not again or self.generation != generation):
                return
            if self._soap is None:
                self._connect()
            # A session that still lives would refuse to be logged in to again.
            self._soap.cookie = ""
            credentials = self.credentials()
            content = vim.ServiceInstance("ServiceInstance", self).RetrieveContent()
            try:
                content.sessionManager.Login(credentials.user, credentials.password, None)
            except vim.fault.InvalidLogin:
                self.refuse(credentials)
                raise
            self.generation += 1
            self._content = content
            self._pbm = None

    def _connect(self) -> None:
        transport = self._stub("/sdk", self._negotiated())
        self._soap = transport
        self.version, self.versionId = transport.version, transport.versionId

    def _negotiated(self) -> Any:
        """Return the newest version that both sides speak; vCenter refuses newer ones."""
        connection = connect(self.center)
        try:
            connection.request("GET", "/sdk/vimServiceVersions.xml")
            answer = connection.getresponse()
            said = set(_VERSION.findall(answer.read().decode("utf-8", "replace")))
        finally:
            connection.close()
        for version in types.GetServiceVersions("vim25"):
            if types.versionIdMap.get(version) in said:
                return version
        return types.versionMap.get(f"vim25/{OLDEST}")

    def _stub(self, path: str, version: Any) -> Any:
        center = self.center
        made = soap.SoapStubAdapter(
            host=center.server,
            port=center.port,
            path=path,
            version=version,
            poolSize=CONNECTIONS,
            thumbprint=None,
            sslContext=tls_context(center),
            httpConnectionTimeout=TIMEOUT,
        )
        self._transports.append(made)
        return made


class _PolicyStub:
    """The policy service's transport: its calls carry the session of the vCenter's login."""

    def __init__(self, session: Session, transport: Any) -> None:
        self._session = session
        self._transport = transport
        self.version, self.versionId = transport.version, transport.versionId

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:
        session = self._session
        try:
            return self._send(mo, info, args)
        except Exception as error:
            if not isinstance(error, vim.fault.NotAuthenticated | vmodl.fault.SecurityError):
                raise
        session._open(session.generation, again=True)
        return self._send(mo, info, args)

    def _send(self, mo: Any, info: Any, args: Any) -> Any:
        session = self._session
        session.calls[info.wsdlName] += 1
        value = session.cookie()
        # vCenter reads the session from the SOAP header, some versions from the cookie.
        self._transport.cookie = f'vmware_soap_session="{value}"'
        self._transport.requestContext = {"vcSessionCookie": value}
        status, found = self._transport.InvokeMethod(mo, info, args, self)
        if status == 200:
            return found
        raise found

    def InvokeAccessor(self, mo: Any, info: Any) -> Any:
        raise NotImplementedError(f"read {info.name} of {mo} by a call")


def tls_context(center: Center) -> ssl.SSLContext:
    """Return the context for a vCenter: its CA, a pinned thumbprint, or no check at all."""
    if center.ca_file:
        try:
            return ssl.create_default_context(cafile=center.ca_file)
        except OSError as error:
            raise errors.Invalid(
                f"the CA file cannot be used ({error.strerror or error})",
                center.ca_file,
                "name a file with certificates in PEM form as ca-file",
            ) from error
    context = _Pinning(ssl.PROTOCOL_TLS_CLIENT)
    if center.thumbprint or center.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.thumbprint = center.thumbprint
    else:
        context.load_default_certs()
    return context


class _Pinning(ssl.SSLContext):
    """A context that looks at the certificate's thumbprint where one is given."""

    thumbprint = ""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(*args, **kwargs)
        if self.thumbprint:
            certificate = wrapped.getpeercert(binary_form=True) or b""
            if not matches(certificate, self.thumbprint):
                wrapped.close()
                raise ssl.SSLCertVerificationError(
                    1, f"its thumbprint is {_sha1(certificate)}, not the configured one"
                )
        return wrapped


def matches(certificate: bytes, thumbprint: str) -> bool:
    """Return whether a certificate (DER) has the thumbprint: SHA-1 or SHA-256, any writing."""
    wanted = re.sub("[^0-9a-f]", "", thumbprint.lower())
    # SHA-1 names the certificate in vCenter's own tools; it identifies here, it does not sign.
    found = {
        hashlib.sha1(certificate, usedforsecurity=False).hexdigest(),
        hashlib.sha256(certificate).hexdigest(),
    }
    return any(hmac.compare_digest(wanted, each) for each in found)


def _sha1(certificate: bytes) -> str:
    digest = hashlib.sha1(certificate, usedforsecurity=False).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def connect(center: Center, timeout: float = TIMEOUT) -> http.client.HTTPSConnection:
    """Return a connection to the vCenter's web server; nothing is sent yet."""
    return http.client.HTTPSConnection(
        center.server, center.port, timeout=timeout, context=tls_context(center)
    )


def _lost_session(result: Any) -> bool:
    # A read answers with what it could not read instead of a fault.
    for each in getattr(result, "objects", None) or ():
        for missing in getattr(each, "missingSet", None) or ():
            if isinstance(missing.fault, vim.fault.NotAuthenticated):
                return True
    return False
