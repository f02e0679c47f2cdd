"""DefaultTolerationSeconds: how long a pod stays on a node that was lost, unless it says itself.

A node that is not ready or cannot be reached is tainted NoExecute. Every new pod gets a toleration
of these two taints for some minutes, so that a short outage moves nothing. A pod that tolerates
one of them already, in whatever form, keeps what it says.

The function changes its argument: it is fresh from decoding and not yet published.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

DEFAULT_SECONDS = 300
TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def fill_in(pod: Object, seconds: int) -> None:
    """Add the tolerations the pod lacks."""
    spec = pod.get("spec")
    if spec is None:
        return
    given = spec.get("tolerations") or []
    missing = [key for key in TAINTS if not any(_tolerates(each, key) for each in given)]
    if missing:
        added = [
            {
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": seconds,
            }
            for key in missing
        ]
        spec["tolerations"] = [*given, *added]


def _tolerates(toleration: Object, key: str) -> bool:
    return toleration.get("key", "") in ("", key) and toleration.get("effect", "") in (
        "",
        "NoExecute",
    )
