"""Volumes on VMware vSphere: VMDK files, First Class Disks, and the VMs that use them.

`backend` is the face; `gateway` and `session` are the only way to a vCenter. What the
volume is called and where it lies is in `identifiers`, what a class may ask for in
`parameters`, where a volume goes in `placement`. `disks` makes plain VMDK files and
`firstclass` First Class Disks, `attaching` hangs either into a VM. `discovery` reads tags
and says which classes there should be; `preparing` makes a vCenter ready.
"""
