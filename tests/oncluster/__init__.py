"""`holdfast controller` on a cluster, real or embedded."""
