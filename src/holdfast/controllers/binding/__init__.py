"""The binder: pairs claims with volumes, keeps their phases, hands released volumes on.

It is what kube-controller-manager's persistent volume controller is on a cluster; there, this
package does not run. `claims` and `volumes` are the two reconcilers, `matching` finds the volume
for a claim, `waiting` the claim for a volume, `writes` holds the four writes of a bind in the
order every observer relies on. Where Kubernetes waits for a resync every 15 seconds, changes wake
exactly the claims and volumes they concern.
"""

from holdfast.controllers.binding.binder import COMPONENT, Binder

__all__ = ["COMPONENT", "Binder"]
