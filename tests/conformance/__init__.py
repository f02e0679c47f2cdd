"""What Kubernetes 1.32 does about storage, as data, and a player of it for any server."""
