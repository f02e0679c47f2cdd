"""Which provisioner names are served here, and how Kubernetes treats each kind of name.

A name that starts with `kubernetes.io/` is in-tree: the binder answers for it, and one nobody
serves is an error at once. The in-tree names that Kubernetes moved to CSI are passed on under
their CSI name. Any other name is an external provisioner's, ours or a stranger's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
    """A provisioner name and the backend behind it, or what opens that when it is needed.

    `csi_driver` is the driver under which its volumes are written on a cluster, whatever the
    name: there the in-tree plug-ins are gone, and a volume that says it was made by one would be
    marked Failed. It is empty on the embedded API, which has them all.
    """

    name: Provisioner
    storage: Backend | Callable[[], Backend]
    csi_driver: str = ""

    @property
    def backend(self) -> Backend:
        """The backend; opened now if this is its first use."""
        return self.storage() if callable(self.storage) else self.storage

    @property
    def in_tree(self) -> bool:
        """Whether Kubernetes serves the name by a plug-in of its own, and not through CSI."""
        if self.csi_driver:
            return False
        return self.name.name.startswith(IN_TREE) and self.name.name not in MIGRATED

    @property
    def driver(self) -> str:
        """The name under which a CSI driver answers for it; its own outside the tree."""
        return self.csi_driver or MIGRATED.get(self.name.name, self.name.name)

    @property
    def maker(self) -> str:
        """What a volume is said to be provisioned by."""
        return self.csi_driver or self.name.name


class Provisioners:
    """The names served by this process.

    `drivers` are CSI drivers that attach volumes besides those that a served name stands for.
    `by_class` are names that Kubernetes asks nobody to serve, though classes may have them: their
    claims are found by their class.
    """

    def __init__(
        self,
        served: Mapping[str, Served],
        drivers: Mapping[str, Callable[[], Backend]] = MappingProxyType({}),
        by_class: Collection[str] = (),
    ) -> None:
        self._served = dict(served)
        self._drivers = dict(drivers)
        self.by_class = frozenset(by_class)

    def get(self, name: str) -> Served | None:
        """The backend behind a name."""
        return self._served.get(name)

    def for_class(self, asked: str, provisioner: str) -> Served | None:
        """What serves a class's provisioner, for a claim that waits for `asked`.

        They differ where Kubernetes translates an in-tree name: the class's own name says how its
        parameters are to be read and how its volumes are written.
        """
        own = self._served.get(provisioner)
        return own if own is not None and own.driver == asked else self._served.get(asked)

    def behind(self, driver: str) -> Backend | None:
        """The backend of a CSI driver, opened now if this is its first use."""
        opener = self._drivers.get(driver)
        if opener is not None:
            return opener()
        served = self._served.get(driver)
        return served.backend if served is not None else None

    def of_kind(self, kind: str) -> Backend | None:
        """The backend of a kind, opened now if this is its first use."""
        found = next((s for s in self._served.values() if s.name.backend == kind), None)
        return found.backend if found is not None else None

    def kinds(self) -> frozenset[str]:
        """The kinds of backends that are served."""
        return frozenset(served.name.backend for served in self._served.values())

    def drivers(self) -> frozenset[str]:
        """The CSI drivers that are served."""
        return frozenset(self._drivers) | {served.driver for served in self._served.values()}

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
