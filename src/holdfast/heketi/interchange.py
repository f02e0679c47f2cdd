"""The database as the JSON that Heketi's `db dump`, `db export` and `db import` speak.

Keys are the Go field names of its types. Links are in it in both directions and space is stored,
although here both are computed.
"""

from __future__ import annotations

from typing import Any

from holdfast.heketi import documents
from holdfast.heketi.entries import (
    BlockVolume,
    Brick,
    Cluster,
    Device,
    Node,
    Operation,
    Volume,
)
from holdfast.heketi.state import State

# What Heketi notes of its own format; without them it would "upgrade" what it reads: all clusters
# that have no flag FLAGS may host everything.
FLAGS = "DB_CLUSTER_HAS_FILE_BLOCK_FLAG"
ATTRIBUTES = ("DB_BRICK_HAS_SUBTYPE_FIELD", FLAGS, "DB_HAS_PENDING_OPS_BUCKET")
# Numbers of Heketi's own types of operations and changes.
OPERATIONS = {
    "create-volume": 1,
    "delete-volume": 2,
    "expand-volume": 3,
    "create-block-volume": 4,
    "delete-block-volume": 5,
    "remove-device": 6,
    "clone-volume": 7,
    "expand-block-volume": 9,
    "evict-brick": 10,
}
CHANGES = {
    "Add brick": 1,
    "Add volume": 2,
    "Delete brick": 3,
    "Delete volume": 4,
    "Expand volume": 5,
    "Remove device": 9,
    "Clone volume from": 10,
}


def dump(state: State) -> dict[str, Any]:
    """Everything."""
    return {
        "clusterentries": {each.id: _cluster(state, each) for each in state.all(Cluster)},
        "volumeentries": {each.id: _volume(state, each) for each in state.all(Volume)},
        "brickentries": {each.id: _brick(state, each) for each in state.all(Brick)},
        "nodeentries": {each.id: _node(state, each) for each in state.all(Node)},
        "deviceentries": {each.id: _device(state, each) for each in state.all(Device)},
        "blockvolumeentries": {
            each.id: {"Info": documents.block_volume(each), "Pending": {"Id": ""}}
            for each in state.all(BlockVolume)
        },
        "dbattributeentries": {key: {"Key": key, "Value": "yes"} for key in ATTRIBUTES},
        "pendingoperations": {each.id: _operation(each) for each in state.all(Operation)},
    }


def _cluster(state: State, entry: Cluster) -> dict[str, Any]:
    info = documents.cluster(state, entry)
    info["volumes"] = [each.id for each in state.below(entry, Volume)]
    return {"Info": info}


def _volume(state: State, entry: Volume) -> dict[str, Any]:
    info = documents.volume(state, entry)
    del info["bricks"]
    return {
        "Info": info,
        "Bricks": [each.id for each in state.below(entry, Brick)],
        "GlusterVolumeOptions": entry.options or None,
        "Pending": {"Id": entry.pending},
    }


def _brick(state: State, entry: Brick) -> dict[str, Any]:
    return {
        "Info": documents.brick(state, entry),
        "TpSize": entry.pool_size,
        "PoolMetadataSize": entry.pool_metadata,
        "Pending": {"Id": entry.pending},
        "LvmThinPool": entry.pool_name,
        "LvmLv": entry.lv,
        "SubType": entry.kind,
        # Not in Heketi's dump: where in the volume's list the brick stands.
        "Position": entry.position,
    }


def _node(state: State, entry: Node) -> dict[str, Any]:
    info = documents.node(state, entry)
    del info["state"], info["devices"]
    devices = [each.id for each in state.below(entry, Device)]
    return {"State": entry.state, "Info": info, "Devices": devices}


def _device(state: State, entry: Device) -> dict[str, Any]:
    info = documents.device(state, entry)
    del info["state"], info["bricks"]
    return {
        "State": entry.state,
        "Info": info,
        "Bricks": [each.id for each in state.below(entry, Brick)],
        "NodeId": entry.node,
        "ExtentSize": entry.extent,
    }


def _operation(entry: Operation) -> dict[str, Any]:
    return {
        "Id": entry.id,
        "Timestamp": entry.started,
        "Type": OPERATIONS.get(entry.type, 0),
        "Actions": [
            {"Change": CHANGES.get(each.what, 0), "Id": each.id, "Delta": each.amount}
            for each in entry.changes
        ],
        "Status": entry.status,
    }
