"""Makes a volume for each claim that asks for one, and deletes it when the claim is gone.

It is what external-provisioner is on a cluster, over `backends` instead of a CSI socket, and the
same code runs there. `provisioner` is the loop over claims, `deleter` the one over released
volumes, `sources` finds what a volume starts with, `volumes` translates between Kubernetes'
objects and the backends' records.
"""

from holdfast.controllers.provisioning.deleter import Deleter
from holdfast.controllers.provisioning.provisioner import ProvisioningController
from holdfast.controllers.provisioning.sources import CloneProtection

__all__ = ["CloneProtection", "Deleter", "ProvisioningController"]
