"""Reviews: questions about identities and permissions, asked by creating an object.

`kubectl auth whoami`, `kubectl auth can-i` and programs that leave their own permissions to the
cluster post one and get it back with its status filled in. Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.api import errors, fields, kinds, shapes
from holdfast.api.fields import Cause
from holdfast.api.kinds import Kind
from holdfast.apiserver import attributes
from holdfast.apiserver.attributes import Attributes, Equalities
from holdfast.apiserver.auth import Authenticator, User
from holdfast.apiserver.authorization import Authorizer
from holdfast.apiserver.options import WriteOptions
from holdfast.kit import clock

Object = dict[str, Any]

_BOTH = "cannot be specified in combination with resourceAttributes"
_NEITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_NOBODY = "at least one of user or group must be specified"
# For whom the tokens are meant: the API server, under the name it has by default in Kubernetes.
_AUDIENCE = "https://kubernetes.default.svc"
_NODE_RULES = "node authorizer does not support user rule resolution"


class Reviews:
    """Answers reviews of all kinds."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._answers: dict[Kind, Callable[[Object, User], Object]] = {
            kinds.TOKEN_REVIEW: self._token,
            kinds.SELF_REVIEW: self._self,
            kinds.ACCESS_REVIEW: self._access,
            kinds.LOCAL_ACCESS_REVIEW: self._access,
            kinds.SELF_ACCESS_REVIEW: self._self_access,
            kinds.SELF_RULES_REVIEW: self._self_rules,
        }

    def answer(
        self, kind: Kind, body: Object, namespace: str | None, user: User, options: WriteOptions
    ) -> Object:
        """Return the review with its status; raises `BadRequest` or `Invalid`."""
        review = _decode(kind, body, options)
        if kind.namespaced:
            given = review["metadata"].setdefault("namespace", namespace or "")
            if given != namespace:
                raise errors.BadRequest(
                    "the namespace of the provided object does not match "
                    "the namespace sent on the request"
                )
        causes = _check(kind, review)
        if causes:
            raise errors.Invalid.of(kind.group, kind.name, "", causes)
        status = self._answers[kind](review.get("spec") or {}, user)
        return kind.shape.decode({**review, "status": status}) | {
            "kind": kind.name,
            "apiVersion": kind.api_version,
        }

    def _token(self, spec: Object, user: User) -> Object:
        if not spec.get("token"):
            raise errors.BadRequest("token is required for TokenReview in authentication")
        audiences = spec.get("audiences") or []
        if audiences and _AUDIENCE not in audiences:
            return {}
        found = self._authenticator.holder(spec["token"])
        if found is None:
            return {"error": "invalid bearer token"}
        meant = {"audiences": [_AUDIENCE]} if audiences else {}
        return {"authenticated": True, "user": _info(found), **meant}

    def _self(self, spec: Object, user: User) -> Object:
        return {"userInfo": _info(user)}

    def _self_access(self, spec: Object, user: User) -> Object:
        allowed, reason = self._authorizer.decide(user, _wanted(spec))
        return {"allowed": allowed, "reason": reason}

    def _access(self, spec: Object, user: User) -> Object:
        asked = User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()))
        return self._self_access(spec, asked)

    def _self_rules(self, spec: Object, user: User) -> Object:
        if not spec.get("namespace"):
            raise errors.BadRequest("no namespace on request")
        rules, complete = self._authorizer.rules(user)
        return {
            "resourceRules": [
                {"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources}
                for rule in rules
                if rule.resources
            ],
            "nonResourceRules": [
                {"verbs": rule.verbs, "nonResourceURLs": rule.paths} for rule in rules if rule.paths
            ],
            "incomplete": not complete,
            "evaluationError": "" if complete else _NODE_RULES,
        }


def _decode(kind: Kind, body: Object, options: WriteOptions) -> Object:
    unknown: list[str] = []
    where = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}'
    try:
        review = kind.shape.decode(body, unknown)
    except shapes.DecodeError as error:
        raise errors.BadRequest(f"{where}: {error}") from error
    texts = options.duplicates + [f'unknown field "{path}"' for path in unknown]
    if texts and options.validation == "Strict":
        raise errors.BadRequest(f"{where}: strict decoding error: {', '.join(texts)}")
    if options.validation != "Ignore":
        options.warnings += texts
    review.setdefault("metadata", {}).pop("managedFields", None)
    # What the server answers with counts, not what was sent as if it were an answer.
    review.pop("status", None)
    if kind is kinds.SELF_REVIEW:
        review["metadata"]["creationTimestamp"] = clock.rfc3339(clock.now())
    return review


def _check(kind: Kind, review: Object) -> list[Cause]:
    if kind not in (kinds.ACCESS_REVIEW, kinds.LOCAL_ACCESS_REVIEW, kinds.SELF_ACCESS_REVIEW):
        return []
    spec, meta = review["spec"], review["metadata"]
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    causes = []
    if resource is not None and path is not None:
        causes.append(fields.invalid("spec.nonResourceAttributes", path, _BOTH))
    if resource is None and path is None:
        causes.append(fields.invalid("spec.resourceAttributes", None, _NEITHER))
    if kind is not kinds.SELF_ACCESS_REVIEW and not (spec.get("user") or spec.get("groups")):
        causes.append(fields.invalid("spec.user", "", _NOBODY))
    if kind is not kinds.LOCAL_ACCESS_REVIEW:
        if meta:
            causes.append(fields.invalid("metadata", meta, "must be empty"))
        return causes
    return causes + _check_local(resource, path, meta)


def _check_local(resource: Object | None, path: Object | None, meta: Object) -> list[Cause]:
    causes = []
    if meta.keys() - {"namespace"}:
        causes.append(fields.invalid("metadata", meta, "must be empty except for namespace"))
    named = (resource or {}).get("namespace", "")
    if resource is not None and named != meta["namespace"]:
        place, rule = "spec.resourceAttributes.namespace", "must match metadata.namespace"
        causes.append(fields.invalid(place, named, rule))
    if path is not None:
        rule = "disallowed on this kind of request"
        causes.append(fields.invalid("spec.nonResourceAttributes", path, rule))
    return causes


def _info(user: User) -> Object:
    found: Object = {"username": user.name, "groups": user.groups}
    return found | ({"uid": user.uid} if user.uid else {})


def _wanted(spec: Object) -> Attributes:
    resource = spec.get("resourceAttributes")
    if resource is None:
        path = spec["nonResourceAttributes"]
        return Attributes(path.get("verb", ""), path.get("path", ""))
    return Attributes(
        resource.get("verb", ""),
        group=resource.get("group", ""),
        resource=resource.get("resource", ""),
        subresource=resource.get("subresource", ""),
        namespace=resource.get("namespace", ""),
        name=resource.get("name", ""),
        fields=_selected(resource.get("fieldSelector") or {}),
    )


def _selected(selector: Object) -> Equalities:
    if selector.get("rawSelector"):
        return attributes.equalities(selector["rawSelector"])
    return tuple(
        (term["key"], term["values"][0])
        for term in selector.get("requirements") or ()
        if term.get("operator") == "In" and len(term.get("values") or ()) == 1
    )
