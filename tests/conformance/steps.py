"""Play the steps of a row against a server over plain HTTP.

One method per verb of the rows' language. A step that does not end as the row says raises
`Deviation` with everything needed to see why. Reads that wait ask again until time is up,
because controllers take theirs; nothing else is ever repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx2

from conformance import expecting, objects

Step = dict[str, Any]

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_VERBS = frozenset(
    {
        "create",
        "update",
        "patch",
        "apply",
        "delete",
        "get",
        "list",
        "watch",
        "until",
        "still",
        "gone",
        "event",
        "request",
    }
)
_SAYS = frozenset(["answers", "says", "shows", "status", "warns", "text", "headers"])
_HOW = frozenset(
    {
        "with",
        "as",
        "query",
        "type",
        "accept",
        "body",
        "send",
        "agent",
        "seconds",
        "at",
        "keep",
    }
)
WORDS = _VERBS | _SAYS | _HOW
_PATIENCE = 20.0


class Deviation(AssertionError):
    """The server did something else than the row says."""


class Player:
    """Plays one row."""

    def __init__(
        self, http: httpx2.Client, name: str, namespace: str, *, quiet: float = 1.2
    ) -> None:
        """`quiet` is how many seconds something stays as it is that is to stay."""
        self._http = http
        self._known = {"$name": name, "$ns": namespace}
        self._namespace = namespace
        self._quiet = quiet
        self.made: list[str] = []

    def play(self, step: Step) -> None:
        """Do one step and check what came of it."""
        step = self._fill(step)
        verb = next(word for word in step if word in _VERBS)
        action: Callable[[Step], None] = getattr(self, f"_{verb}")
        action(step)

    def path_of(self, address: str) -> str:
        """The path of one object."""
        alias, _, subresource = address.partition("/")
        sort, name = objects.find(alias)
        tail = f"/{subresource}" if subresource else ""
        return f"{sort.path(self._namespace)}/{self._fill(name)}{tail}"

    # --- writes

    def _create(self, step: Step) -> None:
        for address, overrides in _pairs(step["create"]):
            sort, _ = objects.find(address)
            body = self._fill(objects.make(address, overrides))
            path = sort.path(body["metadata"].get("namespace", self._namespace))
            answer = self._send("POST", step.get("at", path), step, json_body=body)
            if answer.status_code == 201 and sort.namespaced is False:
                self.made.append(f"{path}/{answer.json()['metadata']['name']}")
            self._check(answer, step, 201)

    def _update(self, step: Step) -> None:
        """Read, change, and write back whole, as `kubectl replace` does."""
        for address, overrides in _pairs(step["update"]):
            path = self.path_of(address)
            for _ in range(20):
                body = objects.merge(self._read(path), overrides)
                answer = self._send("PUT", path, step, json_body=body)
                # A controller was between the two; only a row about conflicts wants to know.
                if answer.status_code != 409 or step.get("answers") == 409:
                    break
                time.sleep(0.02)
            self._check(answer, step, 200)

    def _patch(self, step: Step) -> None:
        for address, patch in _pairs(step["patch"]):
            how = _PATCH_TYPES[step.get("as", "merge")]
            answer = self._send(
                "PATCH", self.path_of(address), {"type": how, **step}, json_body=patch
            )
            self._check(answer, step, 200)

    def _apply(self, step: Step) -> None:
        for address, given in _pairs(step["apply"]):
            sort, name = objects.find(address.partition("/")[0])
            head = {"apiVersion": sort.api, "kind": sort.kind, "metadata": {"name": name}}
            body = self._fill(objects.merge(head, given or {}))
            answer = self._send(
                "PATCH",
                self.path_of(address),
                {"type": _PATCH_TYPES["apply"], **step},
                json_body=body,
            )
            self._check(answer, step, 200)

    def _delete(self, step: Step) -> None:
        body = step.get("with")
        answer = self._send("DELETE", self.path_of(step["delete"]), step, json_body=body)
        self._check(answer, step, 200)

    # --- reads

    def _get(self, step: Step) -> None:
        self._check(self._send("GET", self.path_of(step["get"]), step), step, 200)

    def _list(self, step: Step) -> None:
        sort, _ = objects.find(step["list"])
        self._check(self._send("GET", sort.path(self._namespace), step), step, 200)

    def _request(self, step: Step) -> None:
        verb, path = step["request"].split(" ", 1)
        self._check(self._send(verb, path, step, json_body=step.get("body")), step, 200)

    def _watch(self, step: Step) -> None:
        """Read a watch of a second to its end and compare its lines with `shows`."""
        sort, _ = objects.find(step["watch"])
        query = {"watch": "true", "timeoutSeconds": "1", **step.get("query", {})}
        answer = self._send("GET", sort.path(self._namespace), {**step, "query": query})
        lines = [json.loads(line) for line in answer.text.splitlines() if line]
        # A server sends a bookmark when it likes; the one that ends the beginning is marked.
        lines = [
            line
            for line in lines
            if line["type"] != "BOOKMARK" or "annotations" in line["object"]["metadata"]
        ]
        self._report(expecting.differences(step["shows"], lines, "events"), answer.text)

    def _until(self, step: Step) -> None:
        """Wait until objects look like that."""
        for address, expected in _pairs(step["until"]):
            said = self._wait(lambda a=address, e=expected: self._unlike(a, e), step)  # type: ignore[misc]
            self._report(said, f"{address} in the end: {self._look(address)}")

    def _still(self, step: Step) -> None:
        """See that objects look like that now and stay so."""
        deadline = time.monotonic() + step.get("seconds", self._quiet)
        while time.monotonic() < deadline:
            for address, expected in _pairs(step["still"]):
                self._report(self._unlike(address, expected), str(self._look(address)))
            time.sleep(0.1)

    def _gone(self, step: Step) -> None:
        """Wait until there is no such object."""
        address = step["gone"]
        said = self._wait(lambda: [f"{address} is there"] if self._look(address) else [], step)
        self._report(said, str(self._look(address)))

    def _event(self, step: Step) -> None:
        """Wait for an event about an object."""
        given = dict(step["event"])
        sort, name = objects.find(given.pop("about"))
        subject = {"kind": sort.kind, "name": self._fill(name)}
        query = {"fieldSelector": ",".join(f"involvedObject.{k}={v}" for k, v in subject.items())}
        namespace = self._namespace if sort.namespaced else "default"
        path = objects.SORTS["event"].path(namespace)

        def unheard() -> list[str]:
            heard = self._send("GET", path, {"query": query}).json()["items"]
            if any(not expecting.differences(given, event) for event in heard):
                return []
            return [f"no event {given} in {[(e['reason'], e['message']) for e in heard]}"]

        self._report(self._wait(unheard, step), "")

    # --- what they share

    def _send(self, verb: str, path: str, step: Step, json_body: Any = None) -> httpx2.Response:
        headers = {"Accept": step.get("accept", "application/json")}
        if "agent" in step:
            headers["User-Agent"] = step["agent"]
        content = step.get("send", None)
        if content is None and json_body is not None:
            content = json.dumps(json_body)
        if content is not None:
            headers["Content-Type"] = step.get("type", "application/json")
        query = {key: str(value) for key, value in step.get("query", {}).items()}
        path, _, given = path.partition("?")
        query |= dict(_pair(pair) for pair in given.split("&") if pair)
        return self._http.request(verb, path, params=query, content=content, headers=headers)

    def _check(self, answer: httpx2.Response, step: Step, usual: int) -> None:
        wanted = step.get("answers", 422 if "says" in step else usual)
        said = []
        if answer.status_code != wanted:
            said.append(f"code {answer.status_code} instead of {wanted}")
        if "text" in step:
            said += expecting.differences(step["text"], answer.text, "text")
        elif said == [] and "says" in step:
            said += expecting.invalid(answer.json(), _as_list(step["says"]))
        for word in ("shows", "status"):
            if word in step:
                said += expecting.differences(step[word], answer.json())
        if "warns" in step:
            texts = [_warning(each) for each in answer.headers.get_list("warning")]
            said += expecting.differences(
                sorted(_as_list(step["warns"])), sorted(texts), "warnings"
            )
        for name, value in step.get("headers", {}).items():
            said += expecting.differences(value, answer.headers.get(name), name)
        self._report(said, f"{answer.request.method} {answer.request.url}: {answer.text}")
        for name, way in step.get("keep", {}).items():
            self._known[f"${name}"] = str(_walk(answer.json(), way))

    def _report(self, said: list[str], seen: str) -> None:
        if said:
            raise Deviation("\n".join([*said, seen[:4000]]))

    def _look(self, address: str) -> Any:
        answer = self._send("GET", self.path_of(address), {})
        return None if answer.status_code == 404 else answer.json()

    def _read(self, path: str) -> Any:
        answer = self._send("GET", path.removesuffix("/status"), {})
        if answer.status_code != 200:
            raise Deviation(f"cannot read {path}: {answer.text}")
        return answer.json()

    def _unlike(self, address: str, expected: Any) -> list[str]:
        found = self._look(address)
        return (
            [f"no {address}"] if found is None else expecting.differences(expected, found, address)
        )

    def _wait(self, wrong: Callable[[], list[str]], step: Step) -> list[str]:
        deadline = time.monotonic() + step.get("seconds", _PATIENCE)
        while said := wrong():
            if time.monotonic() > deadline:
                return said
            time.sleep(0.03)
        return []

    def _fill(self, value: Any) -> Any:
        if isinstance(value, str):
            for name, text in self._known.items():
                value = value.replace(name, text)
            return value
        if isinstance(value, dict):
            return {self._fill(key): self._fill(each) for key, each in value.items()}
        return [self._fill(each) for each in value] if isinstance(value, list) else value


def _pairs(given: Any) -> list[tuple[str, Any]]:
    return [(given, {})] if isinstance(given, str) else list(given.items())


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _walk(value: Any, way: str) -> Any:
    for part in way.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _warning(header: str) -> str:
    text = header.removeprefix("299 - ")
    return str(json.loads(text)) if text.startswith('"') else text
