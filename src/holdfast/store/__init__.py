"""The revisioned object log: what the embedded Kubernetes API stands on.

`log.Store` keeps every object in memory and appends every change to one SQLite file
(`database`). `watch` hands committed changes to readers. The package knows buckets, keys and
bytes; what the bytes mean is the API server's business.

The invariant: nothing is visible, to a reader or to the writer itself, before it is on disk;
what was acknowledged is there after `kill -9` or a power cut.
"""
