"""Workloads: what keeps a number of pods running, and replaces them when they change.

``replicasets`` keeps a number of equal pods. ``deployments`` keeps one replica set per pod
template and moves pods from one to the next (``rollout`` does the arithmetic, ``progress`` tells
how far it is). ``statefulsets`` keeps numbered pods with claims of their own (``identity``) and a
history of templates (``revisions``). ``ownership`` decides which objects belong to whom,
``podstate`` what a pod counts as.
"""
