"""Finds out what is wrong before or after it breaks: one check per function, nothing is changed.

A check returns `Finding`s, each with its place and its remedy. What one storage system needs is in
its backend's own package; here is what Kubernetes' objects have to say about it: classes, the
secrets they name, volumes. It reads through `runtime.client`, so it works on any cluster.
"""
