"""The volume controllers: one reconciler per module, woken by events, never by a timer.

They see Kubernetes only through `runtime.client`, embedded or real, and write only patches.
`binding` pairs claims with volumes, `provisioning` makes and deletes volumes, `protection` keeps
what is in use, `scheduling` places pods, `nodeagent` mounts volumes on the node.
"""
