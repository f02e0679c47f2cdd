"""The arithmetic of deployments: how many pods each replica set should have next.

Pure functions over replica sets and numbers. The numbers rest on what is wanted of each set
(`spec.replicas`) and on what its status counts as available, so a step is only taken when an
earlier one has worked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
# The alphabet of Kubernetes' generated names.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

Object = dict[str, Any]
Scaling = tuple[Object, int]
"""A replica set and the number of pods it should have."""


def hash_of(content: Any, collisions: int = 0) -> str:
    """Return ten letters that stand for some JSON, the same in every process."""
    text = msgspec.json.encode([content, collisions], order="deterministic")
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)


def wanted(obj: Object) -> int:
    """Return `spec.replicas` of a deployment or replica set."""
    found: int = obj["spec"].get("replicas", 0)
    return found


def total(sets: Iterable[Object]) -> int:
    """Add up what is wanted of replica sets."""
    return sum(wanted(each) for each in sets)


def counted(sets: Iterable[Object], field: str) -> int:
    """Add up a count of the status of replica sets."""
    return sum(each.get("status", {}).get(field, 0) for each in sets)


def same_template(replica_set: Object, deployment: Object) -> bool:
    """Whether a replica set makes the pods the deployment wants now."""
    return _plain(replica_set["spec"].get("template") or {}) == _plain(
        deployment["spec"].get("template") or {}
    )


def _plain(template: Object) -> Object:
    meta = template.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH_LABEL}
    return {**template, "metadata": {**meta, "labels": labels}}


def oldest_first(sets: Iterable[Object]) -> list[Object]:
    """Order replica sets by age, then by name."""
    return sorted(sets, key=lambda each: _age(each["metadata"]))


def _age(meta: Object) -> tuple[str, str]:
    return meta.get("creationTimestamp", ""), meta["name"]


def revision_of(obj: Object) -> int:
    """Return the revision a deployment or replica set is annotated with; 0 for none."""
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def margins(deployment: Object) -> tuple[int, int]:
    """Return (how many pods may be in excess, how many may be missing) during an update."""
    strategy, replicas = deployment["spec"].get("strategy") or {}, wanted(deployment)
    if strategy.get("type") != "RollingUpdate":
        return 0, 0
    steps = strategy.get("rollingUpdate") or {}
    surge = _amount(steps.get("maxSurge", 0), replicas, up=True)
    missing = _amount(steps.get("maxUnavailable", 0), replicas, up=False)
    if surge == 0 and missing == 0:
        # Percentages of small numbers: without any margin the update could not begin.
        missing = 1
    return surge, min(missing, replicas)


def _amount(given: int | str, whole: int, *, up: bool) -> int:
    if isinstance(given, int):
        return given
    share = whole * int(given.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def next_new(deployment: Object, new: Object, sets: Sequence[Object]) -> int:
    """Return how many pods the set of the present template should have now."""
    replicas = wanted(deployment)
    if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
        return replicas
    if wanted(new) >= replicas:
        return replicas
    surge, _ = margins(deployment)
    room = replicas + surge - total(sets)
    return wanted(new) + max(0, min(room, replicas - wanted(new)))


def next_old(deployment: Object, new: Object, sets: Sequence[Object]) -> Iterator[Scaling]:
    """Yield the old sets that should have fewer pods now: first their unhealthy ones go."""
    old = [each for each in oldest_first(sets) if each is not new and wanted(each) > 0]
    if not old:
        return
    _, missing = margins(deployment)
    least = wanted(deployment) - missing
    new_unavailable = wanted(new) - counted([new], "availableReplicas")
    spare = total(sets) - least - new_unavailable
    if spare <= 0:
        return
    left = {each["metadata"]["name"]: wanted(each) for each in old}
    unhealthy = 0
    for each in old:
        sick = max(0, wanted(each) - counted([each], "availableReplicas"))
        going = min(sick, spare - unhealthy)
        left[each["metadata"]["name"]] -= going
        unhealthy += going
    healthy = max(0, counted(sets, "availableReplicas") - least)
    for each in old:
        name = each["metadata"]["name"]
        going = min(left[name], healthy)
        left[name] -= going
        healthy -= going
    for each in old:
        if left[each["metadata"]["name"]] != wanted(each):
            yield each, left[each["metadata"]["name"]]


def proportional(deployment: Object, active: Sequence[Object]) -> Iterator[Scaling]:
    """Yield what each of several active sets should have after the wanted number changed.

    During an update the change is shared out by size, so that the margins hold; what rounding
    leaves over goes to the largest set.
    """
    surge, _ = margins(deployment)
    allowed = wanted(deployment) + surge if wanted(deployment) > 0 else 0
    to_add = allowed - total(active)
    ordered = sorted(active, key=lambda each: (-wanted(each), _age(each["metadata"])))
    if to_add > 0:
        # Of equal sets the newer one grows first, the older one shrinks first.
        ordered.sort(key=lambda each: _age(each["metadata"]), reverse=True)
        ordered.sort(key=lambda each: -wanted(each))
    sizes: dict[str, int] = {}
    added = 0
    for each in ordered:
        share = _share(each, deployment, to_add, to_add - added, allowed) if to_add else 0
        sizes[each["metadata"]["name"]] = wanted(each) + share
        added += share
    if ordered:
        first = ordered[0]["metadata"]["name"]
        sizes[first] = max(0, sizes[first] + to_add - added)
    for each in ordered:
        yield each, sizes[each["metadata"]["name"]]


def _share(each: Object, deployment: Object, to_add: int, rest: int, allowed: int) -> int:
    notes = each["metadata"].get("annotations") or {}
    text = notes.get(MAXIMUM, "")
    before = int(text) if text.isdigit() and int(text) else wanted(deployment)
    grown = math.floor(wanted(each) * allowed / max(before, 1) + 0.5) - wanted(each)
    return min(grown, rest) if to_add > 0 else max(grown, rest)
