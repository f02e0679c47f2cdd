"""Placing pods on nodes, and choosing volumes for claims that wait for a pod.

``scheduler`` owns the loop; ``placement`` says whether a pod fits a node;
``binding`` decides what each claim of the pod needs on a node and writes it;
``affinity`` is the node selector language, also used wherever a volume's node
affinity is read.
"""
