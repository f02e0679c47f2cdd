"""Tags of vCenter, by its REST interface: SOAP does not know them.

vCenter checks little of what is asked here and the simulator nothing, so cardinality and
the kinds of objects a category is for are checked before a tag is attached.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import faults, session
from holdfast.backends.vsphere.session import Session

ROOT = "/rest/com/vmware/cis"


@dataclass(frozen=True, slots=True)
class Category:
    """A tag category. `kinds` are the types its tags are for; empty: any."""

    id: str
    name: str
    description: str
    single: bool
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag."""

    id: str
    name: str
    category: str
    description: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a tag hangs on: a managed object by type and id."""

    kind: str
    moid: str


class Tagging:
    """The tags of one vCenter; its login is its own and renews itself."""

    def __init__(self, soap: Session) -> None:
        self._soap = soap
        self._lock = threading.Lock()
        self._token = ""
        self._connection: http.client.HTTPSConnection | None = None

    def categories(self) -> list[Category]:
        """Return all categories."""
        return [self._category(each) for each in self._call("GET", "/tagging/category") or ()]

    def category(self, name: str) -> Category | None:
        """Return a category by name."""
        return next((each for each in self.categories() if each.name == name), None)

    def tags(self, category: Category) -> list[Tag]:
        """Return the tags of a category, by name."""
        path = f"/tagging/tag/id:{category.id}?~action=list-tags-for-category"
        found = [self._tag(each) for each in self._call("POST", path, {}) or ()]
        return sorted(found, key=lambda each: each.name)

    def targets(self, tags: Sequence[Tag]) -> dict[str, list[Target]]:
        """Return what each tag hangs on, by the tag's id, in one call."""
        if not tags:
            return {}
        path = "/tagging/tag-association?~action=list-attached-objects-on-tags"
        answer = self._call("POST", path, {"tag_ids": [each.id for each in tags]}) or ()
        return {
            each["tag_id"]: [Target(one["type"], one["id"]) for one in each["object_ids"]]
            for each in answer
        }

    def attached(self, target: Target) -> list[Tag]:
        """Return the tags of an object."""
        path = "/tagging/tag-association?~action=list-attached-tags"
        found = self._call("POST", path, {"object_id": _object(target)}) or ()
        return [self._tag(each) for each in found]

    def create_category(
        self, name: str, description: str, kinds: Iterable[str], *, single: bool
    ) -> Category:
        """Make a category; one of that name is returned as it is."""
        found = self.category(name)
        if found is not None:
            return found
        spec = {
            "name": name,
            "description": description,
            "cardinality": "SINGLE" if single else "MULTIPLE",
            "associable_types": list(kinds),
        }
        return self._category(self._call("POST", "/tagging/category", {"create_spec": spec}))

    def create_tag(self, category: Category, name: str, description: str) -> Tag:
        """Make a tag; one of that name in the category is returned as it is."""
        found = next((each for each in self.tags(category) if each.name == name), None)
        if found is not None:
            return found
        spec = {"name": name, "description": description, "category_id": category.id}
        return self._tag(self._call("POST", "/tagging/tag", {"create_spec": spec}))

    def attach(self, tag: Tag, category: Category, target: Target) -> bool:
        """Attach a tag; returns whether it was missing. Raises Invalid, Conflict."""
        if category.kinds and target.kind not in category.kinds:
            raise errors.Invalid(
                f'tags of "{category.name}" are not for objects of type {target.kind}',
                self._soap.where,
                f"the category is for {', '.join(category.kinds)}",
            )
        present = self.attached(target)
        if any(each.id == tag.id for each in present):
            return False
        others = [each.name for each in present if each.category == category.id]
        if category.single and others:
            raise errors.Conflict(
                f'it has the tag "{others[0]}" already, and "{category.name}" allows one',
                f"{target.kind} {target.moid}",
                "detach that tag first",
            )
        path = f"/tagging/tag-association/id:{tag.id}?~action=attach"
        self._call("POST", path, {"object_id": _object(target)})
        return True

    def detach(self, tag: Tag, target: Target) -> None:
        """Take a tag off an object."""
        path = f"/tagging/tag-association/id:{tag.id}?~action=detach"
        self._call("POST", path, {"object_id": _object(target)})

    def close(self) -> None:
        """End the login."""
        with self._lock:
            connection, self._connection = self._connection, None
            token, self._token = self._token, ""
        if connection is None:
            return
        try:
            connection.request("DELETE", f"{ROOT}/session", headers=_headers(token))
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            # vCenter forgets a session that nobody ends.
            return
        finally:
            connection.close()

    def _category(self, id: str) -> Category:
        found = self._call("GET", f"/tagging/category/id:{id}")
        return Category(
            id=id,
            name=str(found["name"]),
            description=str(found.get("description") or ""),
            single=found.get("cardinality") == "SINGLE",
            kinds=tuple(found.get("associable_types") or ()),
        )

    def _tag(self, id: str) -> Tag:
        found = self._call("GET", f"/tagging/tag/id:{id}")
        # A tag made without a description may come without the key.
        description = str(found.get("description") or "")
        return Tag(id, str(found["name"]), str(found["category_id"]), description)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        self._soap.calls[f"REST {path.split('/')[1].split('?')[0]}"] += 1
        reads = method == "GET" or "~action=list" in path
        with self._lock, faults.translated(self._soap.where):
            for attempt in (1, 2):
                try:
                    status, answer = self._send(method, path, body)
                except session.CLOSED:
                    # An idle connection may have been closed under us; reading may be repeated.
                    if not reads or attempt == 2:
                        raise
                    continue
                if status != 401 or attempt == 2:
                    break
                self._token = ""
        if status >= 300:
            raise _refused(status, answer, self._soap.where, path)
        return json.loads(answer)["value"] if answer.strip() else None

    def _send(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = session.connect(self._soap.center)
        if not self._token:
            self._login()
        headers = _headers(self._token)
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, ROOT + path, body=data, headers=headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise

    def _login(self) -> None:
        assert self._connection is not None
        given = self._soap.credentials()
        pair = base64.b64encode(f"{given.user}:{given.password}".encode()).decode()
        try:
            self._connection.request(
                "POST", f"{ROOT}/session", headers={"Authorization": f"Basic {pair}"}
            )
            answer = self._connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise
        if answer.status == 401:
            self._soap.refuse(given)
        if answer.status >= 300:
            raise _refused(answer.status, content, self._soap.where, "/session")
        self._token = str(json.loads(content)["value"])


def _headers(token: str) -> dict[str, str]:
    return {"vmware-api-session-id": token, "Content-Type": "application/json"}


def _object(target: Target) -> dict[str, str]:
    return {"id": target.moid, "type": target.kind}


def _refused(status: int, answer: bytes, where: str, path: str) -> errors.BackendError:
    text = answer.decode("utf-8", "replace")[:200].strip() or http.client.responses.get(status, "")
    what = f"the tag service answered {status} to {path.split('?')[0]}: {text}"
    if status in (401, 403):
        return errors.Unauthorized(what, where, "check user, password and tagging privileges")
    if status == 404:
        return errors.NotFound(what, where)
    if status == 400:
        return errors.Invalid(what, where)
    return errors.Unavailable(what, where, "it is tried again")
