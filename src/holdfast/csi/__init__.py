"""A face: the Container Storage Interface over backends and the node side.

    service        gRPC handlers from the .proto's descriptors, one place for errors and logs
    identity, controller, snapshots, node   the calls, each a thin adapter
    operations     one operation per volume: repeats join it, others are told about it
    faults         the one table from backends.errors to gRPC codes
    driver         one driver name on one socket
    registration   kubelet's plug-in registration, without a sidecar
    wire/          the .proto files and what is generated from them

Everything that stores or mounts is in `backends` and `node`; this package knows
how CSI words a request, and nothing of Kubernetes objects.

Invariant: gRPC and protobuf are imported here and nowhere else.
"""
