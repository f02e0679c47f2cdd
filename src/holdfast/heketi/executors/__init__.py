"""What is done on the nodes of a cluster: disks, bricks and the `gluster` command.

`protocol` says what can be asked; `nodes` answers it with commands that a transport (`ssh`,
`kubernetes`, `namespaces`) carries to a node and a layout (`lvm`, `loop`) makes of a disk; `mock`
answers without doing anything. Every method may be repeated with the same result.
"""
