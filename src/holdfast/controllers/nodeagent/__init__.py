"""The node agent: what a kubelet does for volumes, on one machine.

``agent`` takes the pods of its node and drives each towards what it should be;
``registration`` keeps the Node, its Lease and its CSINode; ``resolving`` turns a
pod's volume entries into mount orders; ``content`` writes what comes from config
maps and secrets; ``mounting`` carries orders out and undoes them from what is on
disk; ``status`` words the pod's status.

Containers are sleeping sandboxes: a pod is Running when its volumes are mounted.
"""
