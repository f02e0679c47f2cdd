"""Volumes that are images of a Ceph cluster (RBD).

`backend` is the control side: it makes, finds and removes images through the
distribution's `rados` and `rbd` modules, in-process and on kept connections.
`node_side` is the part on the machine that uses an image; `mappers` are the ways
to get a block device out of it: the kernel's client, `rbd-nbd`, or
`qemu-storage-daemon`. Image names follow from claims, so a repeat finds what a
crash left.

Invariant: a key lives in memory only. It is never an argument, an environment
variable, a log line or part of a volume's id or context.
"""
