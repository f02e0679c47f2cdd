"""GlusterFS volumes, made by a Heketi service: Holdfast's own or an existing one.

`rest` speaks the service's API, `connections` knows its addresses and keys, `backend` makes,
grows and deletes volumes through it, `node_side` mounts them. `legacy` is the only module that
knows field names of Kubernetes, `health` asks GlusterFS itself, `checks` says what all of it means
to an administrator, `preparing` writes what a new installation starts from.

Invariant: a volume's name follows from the request's name. A repeat after a lost answer looks for
the name first, so there is never a second volume.
"""
