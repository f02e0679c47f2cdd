"""Rules for VolumeAttachments: which volume goes to which node.

An attachment names a driver, a node and exactly one source, and keeps all three
for life; moving a volume means deleting one attachment and creating another.
"""

from __future__ import annotations

from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names, sources, volumes
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

MAX_METADATA: Final = 256 * 1024
"""Bytes of what a driver says of an attachment."""
MAX_MESSAGE: Final = 1024
"""Bytes of the message of an error."""

_ONE_SOURCE = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


class AttachmentRules(Rules):
    """Rules of VolumeAttachment."""

    namespaced = False
    unconditional_update = False

    def body(self, obj: Object) -> list[Cause]:
        """Check driver, source and node."""
        spec = obj.get("spec", EMPTY)
        said = sources.csi_driver_name(spec.get("attacher", ""), "spec.attacher")
        said += _source(spec.get("source", EMPTY))
        node = spec.get("nodeName", "")
        said += each("spec.nodeName", node, names.subdomain(node))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the spec stays."""
        if new.get("spec") == old.get("spec"):
            return []
        return [fields.immutable("spec", new.get("spec"))]

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check that what the driver says is not too much."""
        status = new.get("status", EMPTY)
        said: list[Cause] = []
        told: dict[str, str] = status.get("attachmentMetadata") or {}
        if sum(len(f"{key}{text}".encode()) for key, text in told.items()) > MAX_METADATA:
            said.append(fields.too_long("status.attachmentMetadata", MAX_METADATA))
        for part in ("attachError", "detachError"):
            message = (status.get(part) or EMPTY).get("message", "")
            if len(message.encode()) > MAX_MESSAGE:
                # The reference refuses by one number and names the other.
                said.append(fields.too_long(f"status.{part}.message", MAX_METADATA))
        return said


def _source(source: Object) -> list[Cause]:
    name, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    if name is None and inline is None:
        return [fields.required("spec.source", _ONE_SOURCE)]
    if name is not None and inline is not None:
        return [fields.forbidden("spec.source", _ONE_SOURCE)]
    path = "spec.source.persistentVolumeName"
    if inline is not None:
        return volumes.inline(inline, "spec.source.inlineVolumeSpec")
    said = [] if name else [fields.required(path, "must specify non empty persistentVolumeName")]
    return said + each(path, name, names.subdomain(name or ""))
