"""Rules for VolumeAttachments: which volume goes to which node.

An attachment names a driver, a node and exactly one source, and keeps all three
for life; moving a volume means deleting one attachment and creating another.
"""

from __future__ import annotations

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names, sources, volumes
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

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
