"""Makes volumes in Cinder so that every repeat finds what an earlier try made.

Cinder does not mind two volumes of one name, so an answer that got lost leaves
a volume nobody knows. Each try therefore looks for the name first. Should there
be two - the first request was still on its way when it was repeated - the
oldest is the volume, and the others go when they are seen. Copies that somebody
made of the volume, by restoring a backup, are theirs.

A volume that ends in `error` never becomes usable. It is removed at once, with
Cinder's explanation in the error, and the next try makes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.backends import access, errors
from holdfast.backends.cinder import parameters, records, removal
from holdfast.backends.cinder.clouds import Cloud, Clouds, is_uuid
from holdfast.backends.cinder.endpoint import Service
from holdfast.backends.cinder.parameters import CinderParameters
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record
from holdfast.backends.protocol import VolumeRequest

CREATE_SECONDS = 120.0


class Making:
    """One try at one request in its cloud."""

    def __init__(
        self,
        clouds: Clouds,
        cloud: Cloud,
        poller: Poller,
        request: VolumeRequest,
        chosen: CinderParameters,
    ) -> None:
        self._clouds = clouds
        self._cloud = cloud
        self._poller = poller
        self._request = request
        self._chosen = chosen
        self._where = f"Cinder of {cloud.instance.where}"

    async def make(self) -> Record:
        """Return the volume, available or in use. Raises backends.errors."""
        wanted = await self._wanted()
        found = await self._kept(await of_name(self._cloud, self._request.name))
        if found is None:
            found = await self._ask(wanted)
        else:
            self._check_same(found, wanted)
        if found["status"] not in ("available", "in-use"):
            settled = await self._poller.settled(found["id"], "created", CREATE_SECONDS)
            if settled is None:
                raise errors.Unavailable(
                    f"volume {found['id']} was removed while it was made", self._where
                )
            found = settled
        if found["status"] in records.FAILED:
            raise await self._discard(found)
        return found

    async def _ask(self, wanted: dict[str, Any]) -> Record:
        try:
            answer = await self._cloud.request(
                "block_storage", "POST", "/volumes", {"volume": wanted}
            )
        except errors.NotFound as error:
            raise await self._named(error) from error
        except errors.Invalid as error:
            if error.remedy or "vailability zone" not in error.what:
                raise
            raise errors.Invalid(error.what, error.where, await self._zones_there()) from error
        found: Record = answer["volume"]
        return found

    async def _named(self, error: errors.NotFound) -> errors.NotFound:
        """Return the error for what a class names and Cinder has not; it may come yet."""
        try:
            await type_id(self._cloud, self._chosen.type)
        except errors.Invalid as unknown:
            if self._chosen.type:
                return errors.NotFound(unknown.what, unknown.where, unknown.remedy)
        return error

    async def _zones_there(self) -> str:
        known = ", ".join(sorted(await zones(self._cloud)))
        if self._chosen.availability:
            return f"`availability` in the class can be: {known}"
        return (
            "the zone is the node's; Cinder has "
            f"{known}: set ignore-volume-az = yes in [BlockStorage] of cloud.conf, or "
            "`availability` in the class"
        )

    async def _wanted(self) -> dict[str, Any]:
        """Return the body of the request, checked as far as can be without making it."""
        request, chosen = self._request, self._chosen
        access.check_writers(request.access, request.mode)
        read = await self._cloud.settings()
        wanted: dict[str, Any] = {
            "name": request.name,
            "size": parameters.gibibytes(request.size),
            "metadata": records.metadata_of(request, chosen, self._cloud.instance.owner),
        }
        if chosen.type:
            wanted["volume_type"] = chosen.type
        if zone := parameters.zone(request, chosen, read.ignore_volume_az):
            wanted["availability_zone"] = zone
        if access.is_shared(request.access):
            await self._check_multiattach()
        if request.source is not None:
            wanted |= await self._source(wanted["size"])
        return wanted

    async def _check_multiattach(self) -> None:
        if not self._chosen.type:
            raise errors.Invalid(
                f"access mode {self._request.access[0]} needs a multiattach volume type, "
                "and the class names no type",
                "StorageClass parameters",
                "give `type: NAME` of one with multiattach='<is> True'",
            )
        found = await self._cloud.request(
            "block_storage", "GET", f"/types/{await type_id(self._cloud, self._chosen.type)}"
        )
        specs = found["volume_type"].get("extra_specs") or {}
        if str(specs.get("multiattach", "")).replace(" ", "").lower() != "<is>true":
            raise errors.Invalid(
                f'volume type "{self._chosen.type}" allows one server at a time, '
                f"not {', '.join(self._request.access)}",
                self._where,
                "use ReadWriteOnce, or a type with multiattach='<is> True'",
            )

    async def _source(self, size: int) -> dict[str, Any]:
        assert self._request.source is not None
        kind = self._request.source.kind
        cloud, uuid = self._clouds.parse(self._request.source.id, self._request.secrets)
        if cloud is not self._cloud:
            raise errors.Invalid("the source is in another cloud", self._request.source.id)
        path = f"/volumes/{uuid}" if kind == "volume" else f"/snapshots/{uuid}"
        found = (await cloud.request("block_storage", "GET", path))[kind]
        if found["status"] not in ("available", "in-use"):
            raise errors.Conflict(
                f"the source {kind} {uuid} is {found['status']}", self._where, "tried again later"
            )
        if int(found["size"]) > size:
            raise errors.Invalid(
                f"the source has {found['size']}Gi, more than the {size}Gi asked for",
                "request",
                f"ask for at least {found['size']}Gi",
            )
        return {"source_volid" if kind == "volume" else "snapshot_id": uuid}

    async def _kept(self, found: Sequence[Record]) -> Record | None:
        """Return the one volume of the name that counts; remove failed ones and duplicates."""
        owner = self._cloud.instance.owner
        for each in found:
            if not records.is_owned(each, owner):
                other = (each.get("metadata") or {}).get(records.OWNER)
                whose = f'belongs to owner "{other}"' if other else "was not made by Holdfast"
                raise errors.AlreadyExists(
                    f'volume {each["id"]} is named "{self._request.name}" too and {whose}',
                    self._where,
                    "rename it, or set `owner` in [cinder.NAME] to what it says",
                )
        failed = [
            each
            for each in found
            if each["status"] in records.FAILED or each["status"] == "deleting"
        ]
        for each in failed:
            await removal.remove(self._cloud, self._poller, each)
        living = [each for each in found if each not in failed]
        if not living:
            return None
        kept = records.oldest(living)
        for each in living:
            if records.is_twin(each, kept) and not each.get("attachments"):
                await removal.remove(self._cloud, self._poller, each)
        return kept

    def _check_same(self, found: Record, wanted: dict[str, Any]) -> None:
        marks, had = wanted["metadata"], found.get("metadata") or {}
        compared = [
            ("size", f"{found['size']}Gi", f"{wanted['size']}Gi"),
            ("source", had.get(records.SOURCE, ""), marks.get(records.SOURCE, "")),
        ]
        if self._chosen.availability:
            compared.append(
                ("availability", found.get("availability_zone"), self._chosen.availability)
            )
        if self._chosen.type and not is_uuid(self._chosen.type):
            compared.append(("type", found.get("volume_type"), self._chosen.type))
        differing = [
            f"{label} is {is_ or 'none'}, not {asked or 'none'}"
            for label, is_, asked in compared
            if is_ != asked
        ]
        if differing:
            raise errors.AlreadyExists(
                f'volume "{self._request.name}" exists and differs: {"; ".join(differing)}',
                self._where,
                "use another name, or delete the volume that is there",
            )

    async def _discard(self, found: Record) -> errors.BackendError:
        said = await records.explain(self._cloud, "volume", found["id"])
        error = records.failure(f"volume {found['id']} could not be made", said, self._where)
        await removal.remove(self._cloud, self._poller, found)
        return error


async def of_name(cloud: Cloud, name: str) -> list[Record]:
    """Return all volumes of the project with a name, of whomever."""
    answer = await cloud.request(
        "block_storage", "GET", "/volumes/detail", query={"name": name, "sort": "created_at:asc"}
    )
    # Some releases match beginnings, too.
    return [each for each in answer["volumes"] if each["name"] == name]


async def type_id(cloud: Cloud, type_: str) -> str:
    """Return the id of a volume type given by name or id. Raises errors.Invalid."""
    answer = await cloud.request("block_storage", "GET", "/types", query={"is_public": "None"})
    for each in answer["volume_types"]:
        if type_ in (each["id"], each["name"]):
            return str(each["id"])
    known = ", ".join(sorted(each["name"] for each in answer["volume_types"]))
    raise errors.Invalid(
        f'there is no volume type "{type_}"',
        f"Cinder of {cloud.instance.where}",
        f"there are: {known}",
    )


async def zones(cloud: Cloud, service: Service = "block_storage") -> set[str]:
    """Return the availability zones that Cinder (or Nova) has at present."""
    answer = await cloud.request(service, "GET", "/os-availability-zone")
    return {
        str(each["zoneName"])
        for each in answer["availabilityZoneInfo"]
        if (each.get("zoneState") or {}).get("available")
    }
