"""Request bodies: JSON, YAML or Kubernetes' protobuf, into the plain dict the rules work on.

For strict field validation the JSON is read a second time to find members given twice, which a
parser otherwise drops in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import yaml

from holdfast.api import errors, fields, kinds, patches, scalars, shapes, strategic
from holdfast.api.kinds import Kind
from holdfast.apiserver import gotext, protobuf
from holdfast.apiserver.options import WriteOptions

Object = dict[str, Any]
JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_GO_MAP = "map[string]interface {}"
_GO_TYPE = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
    'Kind string "json:\\"kind,omitempty\\"" }'
)
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)

_decode_json = msgspec.json.decode


class _YamlLoader(yaml.CSafeLoader):
    """Reads what looks like a date as the text it is, as JSON would."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the name and type are the library's)
        first: [(tag, regexp) for tag, regexp in found if not tag.endswith(":timestamp")]
        for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters."""
    return content_type.partition(";")[0].strip()


def parse(content: bytes, content_type: str) -> Any:
    """The body as plain data; raises `BadRequest` or `UnsupportedMediaType`."""
    media = media_type(content_type)
    if media in ("", JSON):
        return _json(content)
    if media == YAML:
        try:
            return yaml.load(content, Loader=_YamlLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise errors.BadRequest(f"the body is not YAML: {error}") from error
    if media == PROTOBUF:
        return protobuf.decode(content)
    raise errors.UnsupportedMediaType.of((JSON, YAML, PROTOBUF))


def _json(content: bytes) -> Any:
    try:
        return _decode_json(content)
    except (ValueError, RecursionError) as error:
        # Besides msgspec's own error: text that is not UTF-8, and nesting without end.
        raise _NotJson(f"the body is not JSON: {error}") from error


class _NotJson(errors.BadRequest):
    """A body that claims to be JSON and is not; its caller knows what it should have been."""


def _unrecognized(wanted: str) -> str:
    return (
        f"the object provided is unrecognized (must be of type {wanted}): "
        "couldn't get version/kind; json parse error: "
    )


def parse_object(
    content: bytes, content_type: str, kind: Kind, options: WriteOptions, expected: str = ""
) -> Object:
    """An object of the kind; its apiVersion and kind, where given, have to be right."""
    wanted = expected or kind.name
    try:
        body = parse(content, content_type)
    except _NotJson as error:
        why = f"{_unrecognized(wanted)}{_said_of(error.__cause__, content)}{_beginning(content)}"
        raise errors.BadRequest(why) from error
    except protobuf.NotProtobuf as error:
        why = f"the object provided is unrecognized (must be of type {wanted}): {error}"
        raise errors.BadRequest(f"{why}{_beginning(content)}") from error
    if body is None:
        body = {}
    if not isinstance(body, dict):
        sort = scalars.json_type(body, "struct")
        raise errors.BadRequest(
            f"{_unrecognized(wanted)}json: cannot unmarshal {sort} into Go value of type "
            f"{_GO_TYPE}{_beginning(content)}"
        )
    given = body.get("kind") or wanted
    version = body.get("apiVersion") or ("v1" if expected else kind.api_version)
    if given != wanted or (not expected and version != kind.api_version):
        raise errors.BadRequest(_not_wanted(given, version, kind, wanted, content))
    if options.validation != "Ignore" and not content_type.startswith((YAML, PROTOBUF)):
        options.duplicates += _duplicates(content)
    return body


def _not_wanted(given: object, version: object, kind: Kind, wanted: str, content: bytes) -> str:
    """What the reference says of a body whose kind or apiVersion is not that of the path."""
    for field, value in (("kind", given), ("apiVersion", version)):
        if not isinstance(value, str):
            sort = scalars.json_type(value, "string")
            why = f"json: cannot unmarshal {sort} into Go struct field .{field} of type string"
            return f"{_unrecognized(wanted)}{why}{_beginning(content)}"
    assert isinstance(given, str) and isinstance(version, str)
    if version.count("/") > 1:
        why = f"unexpected GroupVersion string: {version}"
        return f"the object provided is unrecognized (must be of type {wanted}): {why}" + (
            _beginning(content)
        )
    short = version.rpartition("/")[2]
    said = f'{given} in version "{short}" cannot be handled as a {wanted}'
    if kinds.by_name(version, given) is None:
        return (
            f'{said}: no kind "{given}" is registered for version "{version}" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"'
        )
    group = kind.group.partition(".")[0] or "core"
    return f"{said}: converting ({short}.{given}) to ({group}.{wanted}): unknown conversion"


def check_named(body: Object, name: str) -> None:
    """Raise `BadRequest` for a whole object that does not say its name."""
    meta = body.get("metadata")
    if meta is None or (isinstance(meta, dict) and not meta.get("name")):
        raise errors.BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: "
            "name must be provided"
        )


def _beginning(content: bytes) -> str:
    """The first bytes of a body, as the reference ends such complaints: an object is shown."""
    first = content[:30]
    text = first.decode(errors="replace") if first[:1] == b"{" else first.hex()
    return f" ({text or '<empty>'}{' ...' if len(content) > 30 else ''})"


def _said_of(error: BaseException | None, content: bytes) -> str:
    """Go's words for the commonest ways in which JSON is broken; else our reader's."""
    if not content.strip() or "truncated" in str(error):
        return "unexpected end of JSON input"
    first = content.lstrip()[:1].decode(errors="replace")
    if first not in '{["-0123456789tfn':
        return f"invalid character '{first}' looking for beginning of value"
    return str(error)


class _Twice(dict[str, Any]):
    """A JSON object in which members were given more than once."""

    names: tuple[str, ...] = ()


def _duplicates(content: bytes) -> list[str]:
    """One text per member given twice, in the order of the document."""
    found = False

    def pairs(members: list[tuple[str, Any]]) -> Object:
        nonlocal found
        obj = dict(members)
        if len(obj) == len(members):
            return obj
        found = True
        twice = _Twice(obj)
        names = [name for name, _ in members]
        twice.names = tuple(name for name in obj if names.count(name) > 1)
        return twice

    tree = json.loads(content, object_pairs_hook=pairs)
    return [f'duplicate field "{path}"' for path in _paths(tree, "")] if found else []


def _paths(tree: Any, prefix: str) -> Iterator[str]:
    if isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _paths(value, f"{prefix}[{index}]")
        return
    if not isinstance(tree, dict):
        return
    start = f"{prefix}." if prefix else ""
    if isinstance(tree, _Twice):
        yield from (start + name for name in tree.names)
    for key, value in tree.items():
        yield from _paths(value, start + key)


def check_patch_type(content_type: str) -> None:
    """Raise `UnsupportedMediaType` for a patch that cannot be applied, whatever it says."""
    if media_type(content_type) not in _PATCHES:
        raise errors.UnsupportedMediaType("415: Unsupported Media Type")


def parse_config(content: bytes, options: WriteOptions) -> Object:
    """The configuration of a server-side apply: YAML, of which JSON is a part.

    What strict validation finds is reported as the reference does it, by the YAML reader.
    """
    try:
        config = _decode_json(content)
        twice = [] if options.validation == "Ignore" else _duplicates(content)
    except (ValueError, RecursionError):
        config, twice = _yaml_config(content, options)
    start = "error decoding YAML: error unmarshaling JSON: while decoding JSON: "
    _check_sort(config, dict, start, _GO_MAP)
    assert isinstance(config, dict)
    if twice and options.validation == "Strict":
        raise errors.BadRequest(f"error strict decoding YAML: {', '.join(twice)}")
    options.warnings += twice
    return config


def _yaml_config(content: bytes, options: WriteOptions) -> tuple[Any, list[str]]:
    try:
        config = yaml.load(content, Loader=_YamlLoader)
        if options.validation == "Ignore":
            return config, []
        tree = yaml.compose(content, Loader=_YamlLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.BadRequest(f"error decoding YAML: {error}") from error
    found = list(_keys_set_twice(tree))
    if not found:
        return config, []
    lines = "\n  ".join(found)
    return config, [f"error converting YAML to JSON: yaml: unmarshal errors:\n  {lines}"]


def _keys_set_twice(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys_set_twice(item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if key.value in seen:
            line = key.start_mark.line + 1
            yield f'line {line}: key "{key.value}" already set in map'
        seen.add(key.value)
        yield from _keys_set_twice(value)


def _check_sort(value: object, wanted: type, start: str, name: str) -> None:
    """Raise `BadRequest` in Go's words for JSON of another type; `name` is Go's for it."""
    if not isinstance(value, wanted):
        sort = scalars.json_type(value, name)
        raise errors.BadRequest(
            f"{start}json: cannot unmarshal {sort} into Go value of type {name}"
        )


def parse_patch(
    content: bytes, content_type: str, kind: Kind, options: WriteOptions
) -> Callable[[Object], Object]:
    """What the patch does to an object, as a function that leaves its argument alone.

    The type has passed `check_patch_type`. The function also makes sure that the result can be
    read as an object of the kind, because a patch that spoils an object is answered with 422,
    where a bad body is a 400.
    """
    media = media_type(content_type)
    patch = _json(content)
    if media == JSON_PATCH:
        steps = patch if isinstance(patch, list) else [None]
        _check_sort(patch, list, "error decoding patch: ", "[]handlers.jsonPatchOp")
        for step in steps:
            _check_sort(step, dict, "error decoding patch: ", "handlers.jsonPatchOp")
    else:
        start = "" if media == STRATEGIC_PATCH else "error decoding patch: "
        _check_sort(patch, dict, start, _GO_MAP)
    twice = [] if options.validation == "Ignore" else _duplicates(content)

    def change(old: Object) -> Object:
        if media == STRATEGIC_PATCH:
            new = _refused(options, strategic.strategic_merge, old, patch, kind.shape)
            shown = gotext.printed(patch)
        else:
            apply = patches.json_patch if media == JSON_PATCH else patches.merge_patch
            new = _refused(options, apply, old, patch)
            shown = ""
        return new if new is old else _readable(new, shown, kind, options, twice)

    return change


def _readable(
    new: Object, shown: str, kind: Kind, options: WriteOptions, texts: list[str]
) -> Object:
    """The patched object without unknown fields; raises `Invalid` if it is not of the kind."""
    unknown: list[str] | None = None if options.validation == "Ignore" else []
    try:
        decoded = kind.shape.decode(new, unknown)
    except shapes.DecodeError as error:
        options.warnings += error.advice
        raise _spoiled(new, shown, str(error)) from error
    texts = texts + [f'unknown field "{path}"' for path in unknown or ()]
    if texts and options.validation == "Strict":
        raise _spoiled(new, shown, f"strict decoding error: {', '.join(texts)}")
    options.warnings += texts
    meta = new.get("metadata")
    if isinstance(meta, dict) and meta.get("managedFields") == []:
        # Decoding drops empty lists; this one is a request to forget all owners.
        decoded["metadata"]["managedFields"] = []
    return decoded


def _spoiled(new: Object, shown: str, why: str) -> errors.Invalid:
    value = shown or msgspec.json.encode(new).decode()
    return errors.Invalid.of("", "", "", [fields.invalid("patch", value, why)])


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise errors.BadRequest("the patch does not leave an object")
    return value


def _refused(options: WriteOptions, apply: Callable[..., Any], *arguments: Any) -> Object:
    try:
        return _object(apply(*arguments))
    except patches.PatchError as error:
        if error.malformed:
            raise errors.BadRequest(f"error decoding patch: {error}") from error
        # The reference does not say which operation it was; the warning does.
        options.warnings.append(str(error))
        raise errors.Invalid(
            "the server rejected our request due to an error in our request"
        ) from error
