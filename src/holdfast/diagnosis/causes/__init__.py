"""Finds the one reason why a claim, a volume or a pod does not get further, and what ends it.

`picture` reads the objects once; the other modules are functions from that picture to an `Answer`,
each for one part of the way: the class and who serves it, volumes that could be taken, nodes,
attachments, finalizers. `asking` is the entry.

Invariant: nothing is changed, and every part of an answer follows from an object that was read.
"""
