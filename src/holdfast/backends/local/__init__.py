"""Volumes on the disks of the machine Holdfast runs on.

A volume is a directory below the volume root with a record and either a sparse
disk image (`layout: image`, size enforced, used through a loop device) or a
plain directory (`layout: directory`, size not enforced, no privilege needed):

    <path>/<name>/volume.json        the record, written last
    <path>/<name>/disk.img | data/   the content
    <path>/.snapshots/<name>/        the same shape, with snapshot.json
    <path>/.new-<name>               a create that was not finished
    <path>/.deleted-<name>           a deletion that was not finished

`backend` is the asynchronous face; `shelf` and `snapshots` do the work in
threads; `node_side` connects volumes and static `local` and `hostPath` ones.

Invariant: a directory without a record is not a volume. A volume appears and
disappears by one rename; what a crash leaves has a name no volume can have.
"""
