"""The node agent: what a kubelet does for volumes, on one machine.

``agent`` takes the pods of its node and drives each towards what it should be;
``registration`` keeps the Node, its Lease and its CSINode; ``resolving`` turns a
pod's volume entries into mount orders; ``content`` writes what comes from config
maps and secrets; ``mounting`` carries orders out and undoes them from what is on
disk; ``running`` drives the containers, with ``environment``, ``programs``, ``restarts``,
``probing``, ``watching`` and ``stopping`` for its parts; ``states`` and ``status`` word
the pod's status; ``podrunner`` serves logs, exec and attach.

Where containers cannot be run, a pod is Running when its volumes are mounted.
"""
