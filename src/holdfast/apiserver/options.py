"""What a caller asks of a write, apart from the object: dry run, strictness, preconditions.

The HTTP face reads these from the query and the body, the in-process client passes them
straight. `duplicates` is what reading the body found, for the one report of field validation;
`warnings` is the one output: texts for the answer's `Warning` headers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.api import errors, fields, shapes
from holdfast.apiserver import gotext
from holdfast.apiserver.auth import User

Validation = Literal["Ignore", "Warn", "Strict"]
PROPAGATION = ("Foreground", "Background", "Orphan")


def refused_dry_run(given: list[str]) -> fields.Cause:
    """Say that `dryRun` knows one value; Kubernetes shows the list as Go writes it."""
    shown = ", ".join(map(fields.quote, given))
    said = f'Unsupported value: []string{{{shown}}}: supported values: "All"'
    return fields.Cause("dryRun", fields.NOT_SUPPORTED, said)


@dataclass(slots=True)
class WriteOptions:
    """Options of create, update and patch."""

    dry_run: bool = False
    validation: Validation = "Ignore"
    manager: str = ""
    """Who comes to own what is written."""
    force: bool = False
    """Whether a server-side apply takes fields from their owners."""
    patches: bool = False
    """Whether the change came as a patch: a wrong uid in one is no conflict but a mistake."""
    user: User | None = None
    """Who writes; None is Holdfast itself."""
    duplicates: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """Options of delete (`meta/v1 DeleteOptions`); `grace` in seconds."""

    uid: str | None = None
    revision: str | None = None
    grace: int | None = None
    propagation: str | None = None
    dry_run: bool = False

    @classmethod
    def of(cls, body: dict[str, Any], query: dict[str, str]) -> DeleteOptions:
        """From a request's body and query; raises `Invalid` on values nobody knows."""
        try:
            body = shapes.of("DeleteOptions").decode(body)
        except shapes.DecodeError as error:
            raise errors.BadRequest(f"DeleteOptions cannot be read: {error}") from error
        preconditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        propagation = body.get("propagationPolicy", query.get("propagationPolicy"))
        causes = []
        if propagation is not None and "orphanDependents" in body:
            texts = "orphanDependents and deletionPropagation cannot be both set"
            causes.append(fields.invalid("propagationPolicy", propagation, texts))
        if propagation is not None and propagation not in PROPAGATION:
            known = (*PROPAGATION, "nil")
            causes.append(
                fields.not_supported("propagationPolicy", propagation, known, in_order=True)
            )
        if propagation is None and body.get("orphanDependents") is not None:
            propagation = "Orphan" if body["orphanDependents"] else "Background"
        dry_run = body.get("dryRun") or ([query["dryRun"]] if "dryRun" in query else [])
        if dry_run not in ([], ["All"]):
            causes.append(refused_dry_run(dry_run))
        if causes:
            raise errors.Invalid.of("meta.k8s.io", "DeleteOptions", "", causes)
        try:
            seconds = None if grace is None else max(0, int(grace))
        except (TypeError, ValueError) as error:
            raise errors.BadRequest(gotext.not_an_integer(str(grace))) from error
        return cls(
            uid=preconditions.get("uid"),
            revision=preconditions.get("resourceVersion"),
            grace=seconds,
            propagation=propagation,
            dry_run=bool(dry_run),
        )
