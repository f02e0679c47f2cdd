"""How a `[Global]` of cloud.conf logs in: as a user, by an application credential or by a trust.

The keys are those of Kubernetes' OpenStack cloud provider, where a user's
domain may be said in three ways and the project is called tenant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holdfast.backends import errors
from holdfast.backends.cinder import cloudconf


def arguments(given: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the arguments of openstacksdk for a `[Global]`. Raises errors.Invalid."""
    _check_address(given, where)
    auth: dict[str, str] = {"auth_url": given["auth-url"]}
    arguments: dict[str, Any] = {"auth": auth}
    if "application-credential-secret" in given:
        arguments["auth_type"] = "v3applicationcredential"
        _application_credential(given, auth, where)
    elif given.get("trust-id"):
        _trust(given, auth, where)
    else:
        _password(given, auth, where)
    if given.get("region"):
        arguments["region_name"] = given["region"]
    if interface := given.get("os-endpoint-type") or given.get("endpoint-type"):
        arguments["interface"] = interface.removesuffix("URL")
    if cloudconf.yes(given.get("tls-insecure", "")):
        arguments["verify"] = False
    elif given.get("ca-file"):
        arguments["cacert"] = given["ca-file"]
    for ours, theirs in (("cert-file", "cert"), ("key-file", "key")):
        if given.get(ours):
            arguments[theirs] = given[ours]
    return arguments


def _application_credential(given: Mapping[str, str], auth: dict[str, str], where: str) -> None:
    auth["application_credential_secret"] = given["application-credential-secret"]
    if given.get("application-credential-id"):
        auth["application_credential_id"] = given["application-credential-id"]
        return
    if not given.get("application-credential-name"):
        raise errors.Invalid(
            "[Global] has an application-credential-secret but no application-credential-id", where
        )
    auth["application_credential_name"] = given["application-credential-name"]
    _user(given, auth)


def _trust(given: Mapping[str, str], auth: dict[str, str], where: str) -> None:
    """The trustee logs in, and the trust says for which project."""
    password = given.get("trustee-password") or given.get("password")
    if not password:
        raise errors.Invalid("[Global] has a trust-id but no trustee-password", where)
    auth |= {"password": password, "trust_id": given["trust-id"]}
    if given.get("trustee-id"):
        auth["user_id"] = given["trustee-id"]
    else:
        _user(given, auth)


def _password(given: Mapping[str, str], auth: dict[str, str], where: str) -> None:
    missing = [key for key in ("password",) if not given.get(key)]
    if not (given.get("username") or given.get("user-id")):
        missing.append("username")
    project = next(
        (
            key
            for key in ("tenant-id", "project-id", "tenant-name", "project-name")
            if given.get(key)
        ),
        "",
    )
    if not project:
        missing.append("tenant-id")
    if missing:
        raise errors.Invalid(f"[Global] has no {' and no '.join(missing)}", where)
    auth["password"] = given["password"]
    auth["project_id" if project.endswith("id") else "project_name"] = given[project]
    _user(given, auth)
    for part in ("id", "name"):
        domain = (
            given.get(f"tenant-domain-{part}")
            or given.get(f"project-domain-{part}")
            or given.get(f"domain-{part}")
        )
        if domain and project.endswith("name"):
            auth[f"project_domain_{part}"] = domain
            break


def _user(given: Mapping[str, str], auth: dict[str, str]) -> None:
    if given.get("user-id"):
        auth["user_id"] = given["user-id"]
        return
    auth["username"] = given.get("username", "")
    for part in ("id", "name"):
        if domain := given.get(f"user-domain-{part}") or given.get(f"domain-{part}"):
            auth[f"user_domain_{part}"] = domain
            break
    else:
        auth["user_domain_id"] = "default"


def _check_address(given: Mapping[str, str], where: str) -> None:
    if "auth-url" not in given:
        raise errors.Invalid("[Global] has no auth-url", where, "it is Keystone's address")
    if not re.match(r"https?://[^/]", given["auth-url"]):
        raise errors.Invalid("auth-url is no address", where, "write http://HOST:PORT/v3, or https")
