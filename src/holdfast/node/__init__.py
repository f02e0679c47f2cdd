"""What happens on one machine: devices, file systems, mounts.

`volumes` is the entrance: stage a volume once per machine, publish it once per
pod, and the way back. The other modules each know one thing: `devices` loop
devices, `signatures` what lies on a disk, `filesystems` making, checking and
growing, `mounts` the mount table, `subpaths` paths that must not escape,
`ownership` fsGroup, `stats` usage, `holders` who keeps a mount busy.

Invariant: every step first looks at what is really there. Nothing is decided
from memory, so a node agent that was killed goes on where the kernel stands.
"""
