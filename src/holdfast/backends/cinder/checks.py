"""Prerequisites of Cinder volumes on the control side: one question each, nothing is changed.

An error of one question does not keep the others from being asked, except that
without a login there is nothing to ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from holdfast.backends import errors
from holdfast.backends.cinder import capacity, making, parameters, settings
from holdfast.backends.cinder.clouds import CONF_KEY, Cloud, Clouds
from holdfast.backends.protocol import Finding

# Below these a feature is missing; see the remedy of `_versions`.
_WANTED = {
    (3, 5): "reasons of failures",
    (3, 27): "repairing attachments",
    (3, 42): "online growth",
}
_LOW = 0.1


async def run(clouds: Clouds) -> list[Finding]:
    """Return the findings for all configured clouds."""
    if not clouds.all():
        return [Finding("clouds", "warning", "none is configured", "[cinder.*]", settings.HOW)]
    found: list[Finding] = []
    for cloud in clouds.all():
        found += await _cloud(cloud)
    return found


async def run_class(
    clouds: Clouds, given: Mapping[str, str], secrets: Mapping[str, str]
) -> list[Finding]:
    """Return the findings for one class: parameters, cloud, type and zone."""
    try:
        chosen = parameters.read(given)
        cloud = clouds.choose(chosen.cloud, secrets)
        if CONF_KEY in secrets and not chosen.cloud:
            settings.load(cloud.instance)
        found = [Finding("cloud", "ok", f"is {cloud.instance.where}", "class")]
        if chosen.type:
            await making.type_id(cloud, chosen.type)
            found.append(Finding("volume type", "ok", f'"{chosen.type}" exists', "class"))
        if chosen.availability:
            found.append(await _zone_of_class(cloud, chosen.availability))
    except errors.BackendError as error:
        return [_finding("class", error)]
    return found


async def _zone_of_class(cloud: Cloud, wanted: str) -> Finding:
    known = await making.zones(cloud)
    if wanted in known:
        return Finding("zone", "ok", f'"{wanted}" exists', "class")
    return Finding(
        "zone",
        "error",
        f'Cinder has no availability zone "{wanted}"',
        "class",
        f"use one of: {', '.join(sorted(known))}",
    )


async def _cloud(cloud: Cloud) -> list[Finding]:
    try:
        project = await cloud.run(lambda endpoint: endpoint.project())
    except errors.BackendError as error:
        return [_finding("login", error)]
    where = cloud.instance.where
    found = [Finding("login", "ok", f"works, for project {project}", where)]
    questions: tuple[Callable[[Cloud], Awaitable[list[Finding]]], ...] = (
        _catalogue,
        _versions,
        _nova,
        _quota,
        _types,
        _zone_names,
    )
    for ask in questions:
        try:
            found += await ask(cloud)
        except errors.BackendError as error:
            found.append(_finding(ask.__name__.strip("_").replace("_", " "), error))
    return found


async def _catalogue(cloud: Cloud) -> list[Finding]:
    address = await cloud.run(lambda endpoint: endpoint.address("block_storage"))
    await cloud.request("block_storage", "GET", "/volumes", query={"limit": "1"})
    return [Finding("catalogue", "ok", f"Cinder answers at {address}", cloud.instance.where)]


async def _versions(cloud: Cloud) -> list[Finding]:
    newest = await cloud.run(lambda endpoint: endpoint.newest("block_storage"))
    lacking = [what for version, what in _WANTED.items() if newest < version]
    text = f"Cinder speaks version 3 up to microversion {newest[0]}.{newest[1]}"
    if newest == (0, 0):
        text = "microversions are switched off, or Cinder tells none"
    if not lacking:
        return [Finding("versions", "ok", text, cloud.instance.where)]
    return [
        Finding(
            "versions",
            "warning",
            f"{text}: no {', no '.join(lacking)}",
            cloud.instance.where,
            "upgrade Cinder to Pike (2017) or newer, or take out ignore-volume-microversion",
        )
    ]


async def _nova(cloud: Cloud) -> list[Finding]:
    where = cloud.instance.where
    if cloud.instance.attach == "cinder":
        return [Finding("attaching", "ok", "by Cinder alone, as configured", where)]
    address = await cloud.run(lambda endpoint: endpoint.address("compute"))
    if not address:
        return [
            Finding(
                "attaching",
                "warning",
                "the catalogue has no Nova: volumes are attached by Cinder, connections of "
                "type local only",
                where,
                "correct region and endpoint type if the cloud has Nova",
            )
        ]
    await cloud.request("compute", "GET", "/servers", query={"limit": "1"})
    return [Finding("attaching", "ok", f"Nova answers at {address}", where), await _sight(cloud)]


async def _sight(cloud: Cloud) -> Finding:
    """Say whether these credentials are told of dead compute hosts."""
    try:
        await cloud.request("compute", "GET", "/os-services", query={"binary": "nova-compute"})
    except errors.Unauthorized:
        return Finding(
            "compute hosts",
            "ok",
            "their state is not shown to this user: a server on a dead host counts as running "
            "until it is evacuated, stopped or deleted",
            cloud.instance.where,
        )
    return Finding("compute hosts", "ok", "their state is shown", cloud.instance.where)


async def _quota(cloud: Cloud) -> list[Finding]:
    limits = await capacity.absolute_limits(cloud)
    found = []
    for what, most, used in (
        ("volumes", "maxTotalVolumes", "totalVolumesUsed"),
        ("gigabytes", "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
        ("snapshots", "maxTotalSnapshots", "totalSnapshotsUsed"),
    ):
        limit, spent = limits.get(most, -1), limits.get(used, 0)
        if limit < 0:
            continue
        left = max(0, limit - spent)
        text = f"{left} of {limit} {what} left"
        low = left <= limit * _LOW
        found.append(
            Finding(
                "quota",
                "warning" if low else "ok",
                text,
                cloud.instance.where,
                f"openstack quota set --{what} N PROJECT, by an administrator" if low else "",
            )
        )
    return found


async def _types(cloud: Cloud) -> list[Finding]:
    answer = await cloud.request("block_storage", "GET", "/types")
    names = sorted(str(each["name"]) for each in answer["volume_types"])
    return [Finding("volume types", "ok", ", ".join(names) or "none", cloud.instance.where)]


async def _zone_names(cloud: Cloud) -> list[Finding]:
    where = cloud.instance.where
    ours = await making.zones(cloud)
    found = [Finding("zones", "ok", f"Cinder: {', '.join(sorted(ours))}", where)]
    read = await cloud.settings()
    if read.ignore_volume_az or cloud.instance.attach == "cinder":
        return found
    if not await cloud.run(lambda endpoint: endpoint.address("compute")):
        return found
    theirs = await making.zones(cloud, "compute")
    if missing := sorted(theirs - ours):
        found.append(
            Finding(
                "zones",
                "warning",
                f"Nova has zones that Cinder has not: {', '.join(missing)}; a volume for a server "
                "there cannot be made",
                where,
                "set ignore-volume-az = yes in [BlockStorage], or `availability` in the class",
            )
        )
    return found


def _finding(check: str, error: errors.BackendError) -> Finding:
    return Finding(check, "error", error.what, error.where, error.remedy)
