"""What a new GlusterFS installation starts from: a topology, checked machines, manifests.

`topology` writes the file that Heketi loads, `machine` tests one machine for a disk, ports and
kernel modules, `manifests` writes what runs glusterd and the Heketi service on Kubernetes.
"""
