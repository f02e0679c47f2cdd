"""Storage systems: one package each, and the contract they all keep.

`protocol` is the contract, `errors` the one family of failures, `parameters`
reads StorageClass parameters, `registry` maps the provisioner names users
write to the backend that answers. `mountinfo` tells what this machine has
mounted, which both a backend on the same machine and the node side need.

Invariant: a backend never sees a Kubernetes object and knows no other
backend. The `legacy` module of each package is the only place where the field
names of a PersistentVolume source appear.
"""
