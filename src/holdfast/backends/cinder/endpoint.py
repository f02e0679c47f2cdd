"""An open connection to one cloud: openstacksdk behind one blocking method.

The session keeps its TCP connections and its token. When a service refuses
the token with 401, the session gets a new one and asks once more by itself;
only when that is refused too, the error gets out.

Invariant: the library's exceptions end here. The text of an error names the
service and its address, never what was sent.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from holdfast.backends import errors
from holdfast.backends.cinder import faults
from holdfast.backends.cinder.settings import CloudSettings

Service = Literal["block_storage", "compute", "identity"]
SECONDS = 60
_TITLES = {"block_storage": "Cinder", "compute": "Nova", "identity": "Keystone"}
_TYPES = {"block_storage": "block-storage", "compute": "compute", "identity": "identity"}
# Cinder asks for it in another way than the service is called in the catalogue.
_VERSION_NAMES = {"block_storage": "volume", "compute": "compute", "identity": "identity"}
# keystoneauth's own surprise at a region that has none of a service's several names.
_NO_ENDPOINT = "choosing an endpoint"
# What the operating system says of a connection, as the HTTP library quotes it.
_REASON = re.compile(r"\[Errno -?\d+\] [\w ,]+|certificate verify failed: [\w -]+|timed out")


class _NotInCatalogue(errors.Unavailable):
    """The catalogue has no such service, which a corrected region may end."""


class Endpoint:
    """One cloud as one user sees it. Its methods block and may be called from several threads."""

    def __init__(self, settings: CloudSettings, where: str, calls: Counter[str]) -> None:
        self._settings = settings
        self._where = where
        self._calls = calls
        self._lock = threading.Lock()
        self._connection: Any = None
        self._adapters: dict[str, Any] = {}
        self._newest: dict[str, tuple[int, int]] = {}

    def request(
        self,
        service: Service,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        version: str = "",
    ) -> Any:
        """Ask a service and return the decoded answer. Raises backends.errors.

        `version` is the microversion to ask for; the service's oldest without one.
        """
        with self._translated(service):
            adapter = self._adapter(service)
            self._calls[f"{_TITLES[service]} {method} {_shape(path)}"] += 1
            options: dict[str, Any] = {}
            if version:
                options["microversion"] = version
                options["microversion_service_type"] = _VERSION_NAMES[service]
            if body is not None:
                options["json"] = body
            if query:
                options["params"] = dict(query)
            answer = adapter.request(path, method, raise_exc=False, **options)
            content = _decoded(answer)
        if answer.status_code >= 400:
            raise faults.of_answer(answer.status_code, content, self._name(service))
        return content

    def newest(self, service: Service) -> tuple[int, int]:
        """Return the newest microversion a service speaks; (0, 0) where it has none."""
        if service == "block_storage" and not self._settings.microversions:
            return (0, 0)
        if service not in self._newest:
            with self._translated(service):
                data = self._adapter(service).get_endpoint_data()
                found = getattr(data, "max_microversion", None)
                self._newest[service] = (found[0], found[1]) if found else (0, 0)
        return self._newest[service]

    def address(self, service: Service) -> str:
        """Return where the catalogue says a service is; '' when it is not in there."""
        try:
            with self._translated(service):
                # Without a login there is no catalogue, and no answer either.
                self._opened().session.get_token()
                return str(self._adapter(service).get_endpoint() or "")
        except _NotInCatalogue:
            return ""

    def project(self) -> str:
        """Return the id of the project the credentials are for."""
        with self._translated("identity"):
            return str(self._opened().session.get_project_id() or "")

    def user(self) -> str:
        """Return the id of the user the credentials are for."""
        with self._translated("identity"):
            return str(self._opened().session.get_user_id() or "")

    def auth_url(self) -> str:
        """Return Keystone's address as the settings have it."""
        with self._translated("identity"):
            return str(self._opened().config.auth["auth_url"])

    def region(self) -> str:
        """Return the region the settings choose; '' where they choose none."""
        with self._translated("identity"):
            return str(self._opened().config.get_region_name() or "")

    def way(self) -> Mapping[str, str]:
        """Return what else of the settings says how to reach the cloud, as keys of cloud.conf."""
        with self._translated("identity"):
            config = self._opened().config
            verify, cert = config.get_requests_verify_args()
            interface = config.get_interface()
        found = {"ca-file": verify} if isinstance(verify, str) else {}
        if verify is False:
            found["tls-insecure"] = "true"
        if isinstance(cert, tuple):
            found |= {"cert-file": cert[0], "key-file": cert[1]}
        elif cert:
            found["cert-file"] = cert
        if interface not in (None, "", "public"):
            found["os-endpoint-type"] = interface
        return found

    def close(self) -> None:
        """Close the connections; nothing may be asked afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _opened(self) -> Any:
        with self._lock:
            if self._connection is None:
                with warnings.catch_warnings():
                    # The library warns of its own statistics, which nobody asked for.
                    warnings.simplefilter("ignore")
                    self._connection = _open(self._settings)
            return self._connection

    def _adapter(self, service: Service) -> Any:
        from keystoneauth1 import adapter

        connection = self._opened()
        with self._lock:
            if service not in self._adapters:
                type_ = _TYPES[service]
                self._adapters[service] = adapter.Adapter(
                    session=connection.session,
                    service_type=type_,
                    interface=connection.config.get_interface(type_),
                    region_name=connection.config.get_region_name(type_),
                    endpoint_override=connection.config.get_endpoint(type_),
                )
            return self._adapters[service]

    def _name(self, service: Service) -> str:
        return f"{_TITLES[service]} of {self._where}"

    @contextlib.contextmanager
    def _translated(self, service: Service) -> Iterator[None]:
        try:
            import requests.exceptions
            from keystoneauth1 import exceptions as auth_errors
            from openstack import exceptions as sdk_errors
        except ImportError as error:
            raise errors.Unsupported(
                "openstacksdk is not installed",
                "OpenStack",
                "install it: pip install 'holdfast[cinder]'",
            ) from error
        try:
            yield
        except (auth_errors.http.Unauthorized, auth_errors.http.NotFound) as error:
            # Only the login itself raises these; 404 is an application credential taken back.
            said = {"message": _first_line(error)}
            raise faults.of_answer(401, said, self._name("identity")) from error
        except auth_errors.MissingRequiredOptions as error:
            raise errors.Invalid(_first_line(error), self._where) from error
        except (auth_errors.EndpointNotFound, sdk_errors.EndpointNotFound) as error:
            raise self._missing(service) from error
        except (auth_errors.AuthorizationFailure, sdk_errors.ConfigException) as error:
            raise errors.Invalid(_first_line(error), self._where) from error
        except auth_errors.SSLError as error:
            raise errors.Unavailable(
                f"its certificate is not accepted ({_first_line(error)})",
                self._name(service),
                "name the file of the authority that signed it: ca-file in [Global], or cacert in "
                "clouds.yaml",
            ) from error
        except (
            auth_errors.ClientException,
            sdk_errors.SDKException,
            requests.exceptions.RequestException,
        ) as error:
            raise errors.Unavailable(
                f"did not answer ({_first_line(error)})",
                self._name(service),
                "check that its address can be reached from this machine",
            ) from error
        except (OSError, ValueError) as error:
            if _NO_ENDPOINT in str(error):
                raise self._missing(service) from error
            # The libraries' own way of saying that a file or an address in the settings is wrong.
            raise errors.Invalid(
                f"cannot be used ({_first_line(error)})",
                self._where,
                "correct the addresses and the names of files in it",
            ) from error

    def _missing(self, service: Service) -> _NotInCatalogue:
        return _NotInCatalogue(
            f"the catalogue has no {_TITLES[service]} for this region and interface",
            self._where,
            "compare `openstack catalog list` with region and os-endpoint-type",
        )


def _open(settings: CloudSettings) -> Any:
    from openstack import config, connection

    if settings.clouds_yaml is None:
        region = config.get_cloud_region(
            load_yaml_config=False,
            load_envvars=False,
            api_timeout=SECONDS,
            app_name="holdfast",
            **_copied(settings.arguments),
        )
        return connection.Connection(config=region)
    # secure.yaml beside it holds passwords, as openstacksdk's users know it.
    secure = settings.clouds_yaml.with_name("secure.yaml")
    found = config.OpenStackConfig(
        config_files=[str(settings.clouds_yaml)],
        secure_files=[str(secure)] if secure.exists() else [],
        vendor_files=[],
        load_envvars=False,
        app_name="holdfast",
    )
    region = _region(found, settings.cloud, settings.clouds_yaml)
    return connection.Connection(config=region)


def _region(found: Any, cloud: str, path: Path) -> Any:
    if cloud not in found.get_cloud_names():
        known = ", ".join(sorted(found.get_cloud_names()))
        raise errors.Invalid(f"has no cloud {cloud}", str(path), f"it has: {known}")
    return found.get_one(cloud, api_timeout=SECONDS)


def _copied(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if key == "auth" else value for key, value in arguments.items()}


def _decoded(answer: Any) -> Any:
    if not answer.content:
        return {}
    try:
        return answer.json()
    except ValueError:
        return {"message": answer.text.strip()[:200]} if answer.status_code >= 400 else {}


def _shape(path: str) -> str:
    """Return the path without ids, for counting."""
    parts = ["ID" if len(part) >= 32 else part for part in path.strip("/").split("/")]
    return "/".join(parts)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    line = lines[0].strip() if lines else type(error).__name__
    # Between the address and the reason, the HTTP library tells of its own inside.
    if reason := _REASON.search(line):
        line = f"{line.partition(': HTTP')[0]}: {reason[0]}"
    return line[:300]
