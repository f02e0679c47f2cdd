"""Which objects a list or watch is about: namespace, label selector, field selector.

Field selectors work only for the fields a kind declares (`kinds.Kind.field_selectors`) besides
`metadata.name` and `metadata.namespace`; any other is a 400 in Kubernetes' words.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.api.selectors import FieldSelector, LabelSelector, SelectorError

Object = dict[str, Any]
_META = ("metadata.name", "metadata.namespace")


def _field(obj: Object, path: str) -> str:
    if path == "source":
        # An event's source selects by either way of naming the reporter.
        source = (obj.get("source") or {}).get("component")
        return str(source or obj.get("reportingComponent") or "")
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "false" if path == "spec.unschedulable" else ""
    return str(value)


class Selection:
    """A parsed selection of one kind; `everything` is true when nothing is filtered."""

    __slots__ = ("_fields", "_labels", "_paths", "everything", "name", "namespace")

    def __init__(self, kind: Kind, namespace: str | None, labels: str, fields: str) -> None:
        try:
            self._labels = LabelSelector.parse(labels) if labels else None
            self._fields = FieldSelector.parse(fields) if fields else None
        except SelectorError as error:
            raise errors.BadRequest(str(error)) from error
        self.namespace = namespace or ""
        self.name: str | None = None
        self._paths: tuple[str, ...] = ()
        if self._fields is not None:
            self._check(kind, self._fields)
        self.everything = self._labels is None and self._fields is None

    def _check(self, kind: Kind, selector: FieldSelector) -> None:
        for path, operator, value in selector.terms:
            if path not in _META and path not in kind.field_selectors:
                if kind.field_selectors and not kind.group:
                    # Kinds of the core group with fields of their own are converted by hand.
                    raise errors.BadRequest(f"field label not supported: {path}")
                known = ", ".join(f'"{name}"' for name in (*_META, *kind.field_selectors))
                raise errors.BadRequest(f'"{path}" is not a known field selector: only {known}')
            if path == "metadata.name" and operator in ("=", "=="):
                self.name = value
        self._paths = tuple(path for path, _, _ in selector.terms)

    def matches(self, obj: Object) -> bool:
        """Whether the object is selected; its namespace has been looked at elsewhere."""
        if self._labels is not None and not self._labels.matches(obj["metadata"].get("labels")):
            return False
        if self._fields is None:
            return True
        return self._fields.matches({path: _field(obj, path) for path in self._paths})

    def covers(self, key: str) -> bool:
        """Whether an object's store key lies in the selected namespace."""
        return not self.namespace or key.startswith(self.namespace + "/")
