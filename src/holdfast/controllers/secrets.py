"""Reads the Secrets that classes and volumes refer to, when they are needed and not before.

A value goes from the API into one call of a backend and is kept nowhere: there is no informer, no
cache, and no text made here contains one. So a repaired Secret counts at the next attempt, and a
process on a cluster needs no right to list Secrets.

The errors say which Secret, what is wrong with it, and the command that repairs it; both kinds
are retryable, because they end when somebody does so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from holdfast.api import errors as api_errors
from holdfast.api import kinds
from holdfast.backends import errors
from holdfast.backends.protocol import NO_SECRETS
from holdfast.backends.secretrefs import SecretRef
from holdfast.runtime.client import Client, Object

# external-provisioner's annotations on a volume: what its deletion needs, when the class is gone.
DELETION_NAME: Final = "volume.kubernetes.io/provisioner-deletion-secret-name"
DELETION_NAMESPACE: Final = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
# Repairing a Secret wakes nobody, so what failed for one is tried again after so many seconds.
RETRY_SECONDS: Final = 15.0


class Missing(errors.NotFound):
    """The Secret does not exist where it is looked for."""


class Unusable(errors.Unauthorized):
    """The Secret is there and is not what is needed."""


class SecretReader:
    """Reads Secrets through a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self, ref: SecretRef | None) -> Mapping[str, str]:
        """Return what the Secret holds, decoded; nothing for no reference.

        Raises Missing or Unusable, and errors.Unavailable when the API refuses or fails.
        """
        if ref is None:
            return NO_SECRETS
        try:
            obj = await self._client.get(kinds.SECRET, ref.name, ref.namespace)
        except api_errors.NotFound as error:
            raise await self._missing(ref) from error
        except api_errors.StatusError as error:
            raise errors.Unavailable(f"cannot be read: {error}", f"secret {ref}") from error
        return decode(ref, obj)

    async def _missing(self, ref: SecretRef) -> Missing:
        elsewhere = await self._namespaces_with(ref.name)
        if elsewhere:
            places = " and ".join(elsewhere[:3])
            return Missing(
                "not found",
                f"secret {ref}",
                f"there is one of that name in namespace {places}: correct the namespace in the "
                f"class, or create it in {ref.namespace} too",
            )
        kind = f" --type={ref.type}" if ref.type else ""
        create = f"kubectl -n {ref.namespace} create secret generic {ref.name}{kind} ..."
        if await self._no_namespace(ref.namespace):
            create = f"kubectl create namespace {ref.namespace}; {create}"
            what = f"not found: there is no namespace {ref.namespace}"
            return Missing(what, f"secret {ref}", create)
        return Missing("not found", f"secret {ref}", create)

    async def _no_namespace(self, name: str) -> bool:
        try:
            await self._client.get(kinds.NAMESPACE, name)
        except api_errors.NotFound:
            return True
        except (api_errors.StatusError, OSError):
            # Only a hint, as below.
            return False
        return False

    async def _namespaces_with(self, name: str) -> list[str]:
        try:
            found = await self._client.list(kinds.SECRET, fields=f"metadata.name={name}")
        except (api_errors.StatusError, OSError):
            # Only a hint: on a cluster there may be no right to look into all namespaces.
            return []
        return sorted(obj["metadata"]["namespace"] for obj in found.items)


def decode(ref: SecretRef, obj: Object) -> dict[str, str]:
    """Return a Secret's values as text; raises Unusable."""
    has = str(obj.get("type") or "Opaque")
    if ref.type and has != ref.type:
        raise Unusable(
            f"its type is {has}, {ref.type} is needed",
            f"secret {ref}",
            f"a type cannot be changed: delete it and create it with --type={ref.type}",
        )
    return {key: _text(ref, key, value) for key, value in (obj.get("data") or {}).items()}


def deletion_annotations(ref: SecretRef | None) -> dict[str, str]:
    """Return the annotations by which a volume remembers the secret of its deletion."""
    if ref is None:
        return {}
    return {DELETION_NAME: ref.name, DELETION_NAMESPACE: ref.namespace}


def deletion_ref(annotations: Mapping[str, str]) -> SecretRef | None:
    """Return the reference that `deletion_annotations` wrote."""
    name, namespace = annotations.get(DELETION_NAME), annotations.get(DELETION_NAMESPACE)
    return SecretRef(namespace, name) if name and namespace else None


def _text(ref: SecretRef, key: str, value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unusable(
            f'the value of "{key}" is no text in base64',
            f"secret {ref}",
            "write it under stringData, or create the secret with kubectl create secret generic",
        ) from error
