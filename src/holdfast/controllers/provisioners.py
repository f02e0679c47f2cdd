"""Which provisioner names are served here, and how Kubernetes treats each kind of name.

A name that starts with `kubernetes.io/` is in-tree: the binder answers for it, and one nobody
serves is an error at once. The in-tree names that Kubernetes moved to CSI are passed on under
their CSI name. Any other name is an external provisioner's, ours or a stranger's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from holdfast.backends.names import Provisioner
from holdfast.backends.protocol import Backend

IN_TREE = "kubernetes.io/"
# In-tree names and the CSI drivers Kubernetes translates them to.
MIGRATED = MappingProxyType(
    {
        "kubernetes.io/aws-ebs": "ebs.csi.aws.com",
        "kubernetes.io/azure-disk": "disk.csi.azure.com",
        "kubernetes.io/azure-file": "file.csi.azure.com",
        "kubernetes.io/cinder": "cinder.csi.openstack.org",
        "kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
        "kubernetes.io/portworx-volume": "pxd.portworx.com",
        "kubernetes.io/vsphere-volume": "csi.vsphere.vmware.com",
    }
)


@dataclass(frozen=True, slots=True)
class Served:
    """A provisioner name and the backend instance behind it."""

    name: Provisioner
    backend: Backend

    @property
    def in_tree(self) -> bool:
        """Whether Kubernetes knows the name as one of its own plug-ins."""
        return self.name.name.startswith(IN_TREE)


class Provisioners:
    """The names served by this process."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._served = dict(served)

    def get(self, name: str) -> Served | None:
        """The backend behind a name."""
        return self._served.get(name)

    def names(self) -> tuple[str, ...]:
        """The names served, in no particular order."""
        return tuple(self._served)

    def serves(self, name: str) -> bool:
        """Whether a backend here answers to the name."""
        return name in self._served

    def in_tree(self, name: str) -> bool:
        """Whether the binder itself has to answer for the name."""
        return name.startswith(IN_TREE) and name not in MIGRATED

    def migrated(self, name: str) -> str:
        """The name of the external provisioner that claims of such a class wait for."""
        return MIGRATED.get(name, name)
