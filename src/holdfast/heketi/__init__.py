"""A face: the REST service of Heketi, which manages the volumes of GlusterFS clusters.

Its clients are those of Heketi 10: `heketi-cli`, Kubernetes' old in-tree provisioner and the Go and
Python libraries. What they rely on - paths, bytes of the answers, texts of the errors - is kept;
what made operators suffer is not: the results of the queue outlive a restart, a name is created
once, space that exists is found.
"""
