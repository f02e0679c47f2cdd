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

from holdfast.api import errors, fields, patches, shapes, strategic
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
        raise errors.BadRequest(f"{_unrecognized(wanted)}{error.__cause__}") from error
    if not isinstance(body, dict):
        raise errors.BadRequest(
            f"{_unrecognized(wanted)}json: cannot unmarshal {type(body).__name__} into an object"
        )
    given = body.get("kind") or wanted
    version = body.get("apiVersion") or ("v1" if expected else kind.api_version)
    if given != wanted:
        group = kind.group.partition(".")[0] or "core"
        raise errors.BadRequest(
            f'{given} in version "{version}" cannot be handled as a {wanted}: '
            f"converting ({version.rpartition('/')[2]}.{given}) to ({group}.{wanted}): "
            "unknown conversion"
        )
    if not expected and version != kind.api_version:
        raise errors.BadRequest(
            f'{given} in version "{version}" cannot be handled as a {wanted}: '
            f'no kind "{given}" is registered for version "{version}" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"'
        )
    if options.validation != "Ignore" and not content_type.startswith((YAML, PROTOBUF)):
        options.duplicates += _duplicates(content)
    return body


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
        raise errors.UnsupportedMediaType.of(_PATCHES)


def parse_config(content: bytes, options: WriteOptions) -> Object:
    """The configuration of a server-side apply: YAML, of which JSON is a part.

    What strict validation finds is reported as the reference does it, by the YAML reader.
    """
    try:
        config = _decode_json(content)
        twice = [] if options.validation == "Ignore" else _duplicates(content)
    except (ValueError, RecursionError):
        config, twice = _yaml_config(content, options)
    if not isinstance(config, dict):
        raise errors.BadRequest("error decoding YAML: the body is not an object")
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
    wanted = list if media == JSON_PATCH else dict
    if not isinstance(patch, wanted):
        form = "list of operations" if wanted is list else "object"
        raise errors.BadRequest(f"the patch must be a JSON {form}")
    twice = [] if options.validation == "Ignore" else _duplicates(content)

    def change(old: Object) -> Object:
        if media == STRATEGIC_PATCH:
            new = _refused(strategic.strategic_merge, old, patch, kind.shape)
            shown = gotext.printed(patch)
        else:
            apply = patches.json_patch if media == JSON_PATCH else patches.merge_patch
            new = _refused(apply, old, patch)
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
        raise _spoiled(new, shown, error.explained) from error
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


def _refused(apply: Callable[..., Any], *arguments: Any) -> Object:
    try:
        return _object(apply(*arguments))
    except patches.PatchError as error:
        if error.malformed:
            raise errors.BadRequest(f"error decoding patch: {error}") from error
        raise errors.Invalid(
            f"the server rejected our request due to an error in our request: {error}"
        ) from error
