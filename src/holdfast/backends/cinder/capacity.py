"""How much room a class has: the project's quota, and the storage backends where we may see them.

Quotas are for everybody. What the storage backends have left is shown to
administrators only, so for a plain member the quota is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.backends import errors
from holdfast.backends.cinder import making, parameters
from holdfast.backends.cinder.clouds import Cloud, Clouds
from holdfast.backends.cinder.parameters import GIB
from holdfast.backends.protocol import NO_SECRETS, Capacity


async def measure(clouds: Clouds, given: Mapping[str, str]) -> Capacity:
    """Return the room for a class. Raises Unsupported when nothing limits or tells it."""
    chosen = parameters.read(given)
    cloud = clouds.choose(chosen.cloud, NO_SECRETS)
    limits = await absolute_limits(cloud)
    rooms = [each for each in (_quota(limits), await _pools(cloud, chosen.type)) if each]
    if not rooms:
        raise errors.Unsupported(
            "the quota has no limit, and these credentials may not see the storage backends",
            f"Cinder of {cloud.instance.where}",
        )
    total = min(each.total for each in rooms)
    return Capacity(total, min(total, *(each.available for each in rooms)))


async def absolute_limits(cloud: Cloud) -> Mapping[str, int]:
    """Return the project's limits and what it uses, by Cinder's names."""
    answer = await cloud.request("block_storage", "GET", "/limits")
    found: Mapping[str, int] = answer["limits"]["absolute"]
    return found


def _quota(limits: Mapping[str, int]) -> Capacity | None:
    total = limits.get("maxTotalVolumeGigabytes", -1)
    if total < 0:
        return None
    used = limits.get("totalGigabytesUsed", 0)
    full = 0 <= limits.get("maxTotalVolumes", -1) <= limits.get("totalVolumesUsed", 0)
    return Capacity(total * GIB, 0 if full else max(0, total - used) * GIB)


async def _pools(cloud: Cloud, type_: str) -> Capacity | None:
    try:
        answer = await cloud.request(
            "block_storage", "GET", "/scheduler-stats/get_pools", query={"detail": "True"}
        )
    except errors.Unauthorized:
        return None
    wanted = await _backend_name(cloud, type_) if type_ else ""
    pools = [each["capabilities"] for each in answer["pools"]]
    chosen = [each for each in pools if not wanted or each.get("volume_backend_name") == wanted]
    total = sum(_number(each.get("total_capacity_gb")) for each in chosen)
    free = sum(_number(each.get("free_capacity_gb")) for each in chosen)
    return Capacity(int(total * GIB), int(free * GIB))


async def _backend_name(cloud: Cloud, type_: str) -> str:
    id = await making.type_id(cloud, type_)
    answer = await cloud.request("block_storage", "GET", f"/types/{id}")
    return str((answer["volume_type"].get("extra_specs") or {}).get("volume_backend_name") or "")


def _number(value: Any) -> float:
    """Drivers say "unknown" and "infinite" too; neither can be added up."""
    return float(value) if isinstance(value, int | float) else 0.0
