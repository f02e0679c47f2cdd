"""Takes, binds and deletes snapshots: the part of snapshot-controller and csi-snapshotter.

`snapshots` looks at what users ask for (VolumeSnapshot), `contents` at what the storage keeps
(VolumeSnapshotContent), `writes` holds what both write. A snapshot and its content point at each
other, like a claim and its volume.

The invariant: what is kept in the storage always has a content that names it, made before it and
removed after it, so nothing is kept that nobody can find.
"""

from holdfast.controllers.snapshots.contents import ContentController
from holdfast.controllers.snapshots.snapshots import COMPONENT, SnapshotController

__all__ = ["COMPONENT", "ContentController", "SnapshotController"]
