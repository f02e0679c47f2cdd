"""Request bodies: JSON, YAML or Kubernetes' protobuf, into the plain dict the rules work on.

For strict field validation the JSON is read a second time to find members given twice, which a
parser otherwise drops in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from holdfast.api import errors, patches, strategic
from holdfast.api.kinds import Kind
from holdfast.apiserver import protobuf
from holdfast.apiserver.options import WriteOptions

Object = dict[str, Any]
JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_decode_json = msgspec.json.decode


def parse(content: bytes, content_type: str) -> Any:
    """The body as plain data; raises `BadRequest` or `UnsupportedMediaType`."""
    media = content_type.partition(";")[0].strip()
    if media in ("", JSON):
        return _json(content)
    if media == YAML:
        try:
            return yaml.load(content, Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise errors.BadRequest(f"the body is not YAML: {error}") from error
    if media == PROTOBUF:
        return protobuf.decode(content)
    raise errors.UnsupportedMediaType.of((JSON, YAML, PROTOBUF))


def _json(content: bytes) -> Any:
    try:
        return _decode_json(content)
    except msgspec.DecodeError as error:
        raise errors.BadRequest(f"the body is not JSON: {error}") from error


def parse_object(
    content: bytes, content_type: str, kind: Kind, options: WriteOptions, expected: str = ""
) -> Object:
    """An object of the kind; its apiVersion and kind, where given, have to be right."""
    body = parse(content, content_type)
    if not isinstance(body, dict):
        raise errors.BadRequest(f"the body is not an object but {type(body).__name__}")
    wanted = expected or kind.name
    given = body.get("kind") or wanted
    version = body.get("apiVersion") or ("v1" if expected else kind.api_version)
    if given != wanted:
        raise errors.BadRequest(
            f"{given} in version {version!r} cannot be handled as a {wanted}: "
            f"no kind {given!r} is served at this path".replace("'", '"')
        )
    if not expected and version != kind.api_version:
        raise errors.BadRequest(
            f"the API version in the data ({version}) does not match "
            f"the expected API version ({kind.api_version})"
        )
    if options.validation != "Ignore" and content_type.startswith(JSON):
        _check_duplicates(content, kind, options)
    return body


def _check_duplicates(content: bytes, kind: Kind, options: WriteOptions) -> None:
    duplicates: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> Object:
        names: Object = {}
        for name, value in members:
            if name in names:
                duplicates.append(name)
            names[name] = value
        return names

    tree = json.loads(content, object_pairs_hook=pairs)
    if not duplicates:
        return
    texts = [f'duplicate field "{_locate(tree, name)}"' for name in duplicates]
    if options.validation == "Strict":
        raise errors.BadRequest(
            f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: '
            f"strict decoding error: {', '.join(texts)}"
        )
    options.warnings += texts


def _locate(tree: Any, name: str, path: str = "") -> str:
    """The dotted path of the first member of that name; the name alone if there is none."""
    if isinstance(tree, dict):
        if name in tree:
            return f"{path}.{name}" if path else name
        for key, value in tree.items():
            found = _locate(value, name, f"{path}.{key}" if path else key)
            if found.rpartition(".")[0]:
                return found
    return name


def parse_patch(content: bytes, content_type: str, kind: Kind) -> Callable[[Object], Object]:
    """What the patch does to an object, as a function that leaves its argument alone."""
    media = content_type.partition(";")[0].strip()
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise errors.UnsupportedMediaType.of((JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH))
    patch = _json(content)
    if media == JSON_PATCH:
        if not isinstance(patch, list):
            raise errors.BadRequest("a JSON patch is a list of operations")
        return lambda old: _refused(patches.json_patch, old, patch)
    if not isinstance(patch, dict):
        raise errors.BadRequest("a merge patch is an object")
    if media == MERGE_PATCH:
        return lambda old: _object(patches.merge_patch(old, patch))
    return lambda old: _refused(strategic.strategic_merge, old, patch, kind.shape)


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise errors.BadRequest("the patch does not leave an object")
    return value


def _refused(apply: Callable[..., Any], *arguments: Any) -> Object:
    try:
        return _object(apply(*arguments))
    except patches.PatchError as error:
        if error.malformed:
            raise errors.BadRequest(f"the patch cannot be read: {error}") from error
        raise errors.Invalid(
            f"the server rejected our request due to an error in our request: {error}"
        ) from error
