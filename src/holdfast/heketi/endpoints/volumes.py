"""/volumes.

A volume asked for by a name is made once: the same request again, after a lost answer or a restart,
leads to the volume or to the operation that is making it.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from holdfast.heketi import answers, bodies, documents, entries, errors
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.bodies import VolumeBody
from holdfast.heketi.entries import BlockVolume, Cluster, Durability, Operation, Volume
from holdfast.heketi.service import Service
from holdfast.heketi.state import Transaction

DATABASE_VOLUME = "heketidbstorage"


async def create(service: Service, asked: Asked) -> Answer:
    """POST /volumes; with `dry-run` only the placement is shown."""
    body = bodies.read(asked.body, VolumeBody)
    durability = bodies.check_volume(body)
    clusters = _clusters(service, body)
    least = service.settings.limits.brick_least * durability.parts
    if body.size * entries.GIB < least:
        raise errors.Invalid(
            f"Requested volume size ({body.size} GB) is smaller than the minimum supported "
            f"volume size ({least})"
        )
    volume = _wanted(service, body, durability)
    if asked.flag("dry-run"):
        return _shown(service, clusters, volume)
    ticket = _made_before(service, clusters, volume, asked.role)
    if ticket is None:
        ticket = service.engine.start(
            "create-volume",
            asked.role,
            lambda tx, op: _build(service, tx, op, clusters, volume),
        )
    return answers.accepted(ticket)


def _clusters(service: Service, body: VolumeBody) -> list[Cluster]:
    state = service.state
    if not state.count(Cluster):
        raise errors.Invalid("No clusters configured")
    for key in body.clusters or []:
        if state.find(Cluster, key) is None:
            raise errors.Invalid(f"Cluster id {key} not found")
    if body.clusters:
        return [state.get(Cluster, key) for key in body.clusters]
    return state.all(Cluster)


def _wanted(service: Service, body: VolumeBody, durability: Durability) -> Volume:
    settings = service.settings
    key = entries.new_id()
    given = [text.strip() for text in body.glustervolumeoptions or [] if text.strip()]
    block_options = ["group gluster-block"] if body.block and not given else []
    return Volume(
        id=key,
        name=body.name or f"vol_{key}",
        cluster="",
        size=body.size,
        durability=durability,
        gid=body.gid,
        options=[*settings.options_before, *given, *block_options, *settings.options_after],
        block=body.block,
        snapshot=body.snapshot.enable,
        factor=body.snapshot.factor if body.snapshot.enable else 1.0,
    )


def _made_before(
    service: Service, clusters: list[Cluster], volume: Volume, role: str
) -> str | None:
    """The ticket of an earlier request that was the same."""
    for cluster in clusters:
        there = service.state.volume_named(cluster.id, volume.name)
        if there is None or not _same(there, volume):
            continue
        operation = service.state.operation_on(there.id)
        if operation is None and not there.pending:
            return service.engine.done(role, f"/volumes/{there.id}")
        if operation is not None and operation.type == "create-volume" and not operation.error:
            return operation.ticket
    return None


def _same(there: Volume, volume: Volume) -> bool:
    return there == replace(
        volume,
        id=there.id,
        cluster=there.cluster,
        pending=there.pending,
        restriction=there.restriction,
    )


def _build(
    service: Service,
    transaction: Transaction,
    operation: Operation,
    clusters: list[Cluster],
    volume: Volume,
) -> Operation:
    """Take the first cluster that has room; or say of each why it has not."""
    refusals: dict[str, errors.Refused] = {}
    for cluster in _eligible(service, clusters, volume, refusals):
        try:
            own = replace(volume, cluster=cluster.id)
            request = {"volume": msgspec.to_builtins(own)}
            return service.create_volume.build(
                transaction, replace(operation, request=request), cluster, own
            )
        except errors.Refused as error:
            refusals[cluster.id] = error
    raise _joined(refusals)


def _eligible(
    service: Service,
    clusters: list[Cluster],
    volume: Volume,
    refusals: dict[str, errors.Refused],
) -> list[Cluster]:
    """The clusters that may hold it; the others are noted. Raises when there is none."""
    found = []
    for cluster in clusters:
        try:
            _check_cluster(service, cluster, volume)
            found.append(cluster)
        except errors.Refused as error:
            refusals[cluster.id] = error
    if not found:
        raise _joined(refusals, "No eligible cluster for volume")
    return found


def _joined(
    refusals: dict[str, errors.Refused], title: str = "Unable to create volume on any cluster:"
) -> errors.Refused:
    if len(refusals) == 1:
        error = next(iter(refusals.values()))
        return type(error)(f"Failed to allocate new volume: {error.text}")
    lines = "\n".join(f"Cluster {key}: {error.text}" for key, error in refusals.items())
    return errors.NoSpace(f"Failed to allocate new volume: {title}\n{lines}")


def _check_cluster(service: Service, cluster: Cluster, volume: Volume) -> None:
    if not cluster.file and not cluster.block:
        raise errors.Refused("Cluster has disabled all volume types")
    if not (cluster.block if volume.block else cluster.file):
        raise errors.Refused("Cluster does not support requested volume type")
    most = service.settings.limits.volumes or 1000
    count = service.state.count_below(cluster, Volume)
    if 0 < most <= count:
        raise errors.Refused(f"Cluster has {count} volumes and limit is {most}")
    if service.state.volume_named(cluster.id, volume.name) is not None:
        raise errors.Refused(f"Volume name '{volume.name}' already in use")


def _shown(service: Service, clusters: list[Cluster], volume: Volume) -> Answer:
    """Where the bricks would go."""
    refusals: dict[str, errors.Refused] = {}
    for cluster in _eligible(service, clusters, volume, refusals):
        try:
            own = replace(volume, cluster=cluster.id)
            sets = service.bricks.place(cluster, own, own.size, own.id)
        except errors.Refused as error:
            refusals[cluster.id] = error
            continue
        bricks = [
            {
                "set": number,
                "node": placed.node.id,
                "host": placed.node.manage,
                "zone": placed.node.zone,
                "device": placed.device.id,
                "name": placed.device.name,
                "arbiter": placed.kind == entries.ARBITER,
                "size": placed.footprint.size,
                "space": placed.footprint.space,
            }
            for number, each in enumerate(sets)
            for placed in each
        ]
        return answers.document({"cluster": cluster.id, "size": own.size, "bricks": bricks})
    raise _joined(refusals)


def _get(service: Service, key: str) -> Volume:
    volume = service.state.get(Volume, key)
    if volume.pending:
        raise errors.NotFound()
    return volume


async def list_all(service: Service, asked: Asked) -> Answer:
    """GET /volumes."""
    found = [each.id for each in service.state.all(Volume) if not each.pending]
    return answers.document({"volumes": found})


async def info(service: Service, asked: Asked, key: str) -> Answer:
    """GET /volumes/{id}."""
    return answers.document(documents.volume(service.state, _get(service, key)))


async def delete(service: Service, asked: Asked, key: str) -> Answer:
    """DELETE /volumes/{id}; asked again while it goes, it is the same deletion."""
    volume = _get(service, key)
    if volume.name == DATABASE_VOLUME:
        raise errors.Conflict("Cannot delete volume containing the Heketi database")
    if service.state.count_below(volume, BlockVolume):
        raise errors.Conflict("Cannot delete a block hosting volume containing block volumes")
    operation = service.state.operation_on(key)
    if operation is not None and operation.type == "delete-volume":
        return answers.accepted(operation.ticket)
    service.check_free(key)
    _check_bricks(service, volume)
    ticket = service.engine.start(
        "delete-volume", asked.role, lambda tx, op: service.delete_volume.build(tx, op, volume)
    )
    return answers.accepted(ticket)


def _check_bricks(service: Service, volume: Volume) -> None:
    for brick in service.state.bricks_of(volume):
        service.check_free(brick.id)


async def expand(service: Service, asked: Asked, key: str) -> Answer:
    """POST /volumes/{id}/expand by a number of GiB."""
    body = bodies.read(asked.body, bodies.ExpandBody)
    bodies.check(expand_size=bodies.positive(body.expand_size))
    volume = _get(service, key)
    service.check_free(key)
    _check_bricks(service, volume)

    def build(transaction: Transaction, operation: Operation) -> Operation:
        try:
            return service.expand_volume.build(transaction, operation, volume, body.expand_size)
        except errors.Refused as error:
            text = f"Failed to allocate volume expansion: {error.text}"
            raise type(error)(text) from error

    return answers.accepted(service.engine.start("expand-volume", asked.role, build))


async def clone(service: Service, asked: Asked, key: str) -> Answer:
    """POST /volumes/{id}/clone."""
    body = bodies.read(asked.body, bodies.CloneBody, optional=True)
    bodies.check(name=bodies.volume_name(body.name))
    volume = _get(service, key)
    if volume.block:
        raise errors.Refused(
            f"Failed clone volume {key}: Cloning of block hosting volumes is not supported"
        )
    if service.settings.executor.layout == "loop" and service.executor.real:
        raise errors.Refused(
            f"Failed clone volume {key}: bricks in image files have no snapshots; "
            "clones need the layout lvm"
        )
    if body.name and service.state.volume_named(volume.cluster, body.name) is not None:
        raise errors.Refused(f"Failed clone volume {key}: Name {body.name} already in use")
    service.check_free(key)
    _check_bricks(service, volume)
    ticket = service.engine.start(
        "clone-volume",
        asked.role,
        lambda tx, op: service.clone_volume.build(tx, op, volume, body.name),
    )
    return answers.accepted(ticket)


async def restrict(service: Service, asked: Asked, key: str) -> Answer:
    """POST /volumes/{id}/block-restriction."""
    body = bodies.read(asked.body, bodies.RestrictionBody)
    if body.restriction not in ("", "locked"):
        bodies.check(restriction=bodies.NOT_VALID)
    volume = _get(service, key)
    if not volume.block:
        raise errors.Refused(
            "Failed to set block restriction: Block restrictions can only be set on block "
            "hosting volumes"
        )
    with service.state.transaction() as transaction:
        transaction.put(replace(volume, restriction=body.restriction))
    return answers.accepted(service.engine.done(asked.role, f"/volumes/{key}"))
