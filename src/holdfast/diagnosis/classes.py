"""Checks of StorageClasses: their provisioner, parameters, secrets, and where these lead.

A secret whose place depends on the claim cannot be looked up without one, and is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from holdfast.api import views
from holdfast.backends import errors, registry
from holdfast.backends.names import Provisioner
from holdfast.backends.protocol import NO_SECRETS, Backend, ClassChecker, Finding
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef, SecretRefs
from holdfast.controllers import secrets
from holdfast.diagnosis import secretchecks
from holdfast.runtime.client import Object

_CHECK = "class"
# Stands for what a claim would say; it can be part of no name.
_UNKNOWN = "\0"


async def check(
    obj: Object, reader: secrets.SecretReader, open_backend: Callable[[str], Backend]
) -> Sequence[Finding]:
    """Test a class whose provisioner is one of ours; nothing for those of others."""
    storage_class = views.storage_class(obj)
    where = f"class {storage_class.metadata.name}"
    entry = registry.find(storage_class.provisioner)
    if entry is None:
        return _of_others(where, storage_class.provisioner)
    try:
        parameters = entry.parameters(storage_class.parameters)
        refs = _refs(entry, storage_class)
    except errors.Invalid as error:
        return [Finding(_CHECK, "error", error.what, where, error.remedy)]
    reports = {
        ref: await secretchecks.check(reader, ref, where) for ref in dict.fromkeys(_named(refs))
    }
    found = [finding for report in reports.values() for finding in report.findings]
    backend = open_backend(entry.backend)
    ours = refs.provision
    # A secret that is wrong by its looks need not be tried.
    usable = ours is None or (ours in reports and reports[ours].sound)
    if usable and isinstance(backend, ClassChecker):
        values = reports[ours].values if ours is not None else NO_SECRETS
        found += await _ask(backend, parameters, values, where)
    return found or [Finding(_CHECK, "ok", "its parameters can be used", where)]


def backend_of(obj: Object) -> str:
    """Return the backend behind a class; empty for those of others."""
    entry = registry.find(str(obj.get("provisioner", "")))
    return entry.backend if entry is not None else ""


async def _ask(
    backend: ClassChecker, parameters: Mapping[str, str], values: Mapping[str, str], where: str
) -> list[Finding]:
    try:
        found = await backend.check_class(parameters, values)
    except errors.BackendError as error:
        return [Finding(_CHECK, "error", error.what, error.where or where, error.remedy)]
    return [dataclasses.replace(each, where=each.where or where) for each in found]


def _refs(entry: Provisioner, storage_class: views.StorageClass) -> SecretRefs:
    nobody = ClaimIdentity(_UNKNOWN, _UNKNOWN, _UNKNOWN)
    return entry.secrets(storage_class.parameters or {}, nobody)


def _named(refs: SecretRefs) -> list[SecretRef]:
    found = [getattr(refs, field.name) for field in dataclasses.fields(refs)]
    return [
        ref
        for ref in found
        if isinstance(ref, SecretRef) and _UNKNOWN not in ref.name + ref.namespace
    ]


def _of_others(where: str, provisioner: str) -> Sequence[Finding]:
    near = registry.nearest(provisioner)
    if near is None:
        return ()
    what = f"nobody here answers to provisioner {provisioner}"
    return [Finding(_CHECK, "warning", what, where, f"did you mean {near}?")]
