"""The kinds this control plane serves: names, scope, subresources and shapes.

Every layer that speaks of a resource speaks of one of the constants below, so a
path, a bucket of the store, a cache and a controller all agree on what, say, a
claim is called. What a kind's objects look like is data: `data/*.json`, one file
per kind plus the shared types, read by `holdfast.api.shapes` when first needed.

Invariant: there is exactly one `Kind` instance per served kind. Kinds compare and
hash by identity; importing this module reads no data file.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from holdfast.api import shapes

VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""What can be done to the objects of a kind, in the order discovery lists them."""


@dataclass(frozen=True, eq=False)
class Kind:
    """One served resource; `field_selectors` are those beyond metadata.name and .namespace."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    field_selectors: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS

    def __repr__(self) -> str:
        return f"<Kind {self.api_version} {self.name}>"

    @functools.cached_property
    def singular(self) -> str:
        """The lower-case singular name, as in the object column of events."""
        return self.name.lower()

    @functools.cached_property
    def api_version(self) -> str:
        """`v1` for the core group, `group/version` for the others."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @functools.cached_property
    def bucket(self) -> str:
        """The name of the kind's bucket in the store; it does not change with the version."""
        return f"{self.group or 'core'}/{self.plural}"

    @functools.cached_property
    def resource(self) -> str:
        """The group-qualified plural of error messages: `storageclasses.storage.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @functools.cached_property
    def shape(self) -> shapes.Shape:
        """What the objects look like; the data is read and compiled at first use."""
        return shapes.of(self.name)


NAMESPACE: Final = Kind(
    group="",
    version="v1",
    name="Namespace",
    plural="namespaces",
    namespaced=False,
    short_names=("ns",),
    subresources=("finalize", "status"),
    field_selectors=("status.phase",),
    # Emptying a cluster of all namespaces in one request is not offered by Kubernetes.
    verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
)
NODE: Final = Kind(
    group="",
    version="v1",
    name="Node",
    plural="nodes",
    namespaced=False,
    short_names=("no",),
    subresources=("status",),
    field_selectors=("spec.unschedulable",),
)
POD: Final = Kind(
    group="",
    version="v1",
    name="Pod",
    plural="pods",
    namespaced=True,
    short_names=("po",),
    subresources=("attach", "binding", "eviction", "exec", "log", "portforward", "status"),
    categories=("all",),
    field_selectors=(
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
        "status.podIPs",
    ),
)
VOLUME: Final = Kind(
    group="",
    version="v1",
    name="PersistentVolume",
    plural="persistentvolumes",
    namespaced=False,
    short_names=("pv",),
    subresources=("status",),
)
CLAIM: Final = Kind(
    group="",
    version="v1",
    name="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    namespaced=True,
    short_names=("pvc",),
    subresources=("status",),
)
SECRET: Final = Kind(
    group="",
    version="v1",
    name="Secret",
    plural="secrets",
    namespaced=True,
    field_selectors=("type",),
)
CONFIG_MAP: Final = Kind(
    group="",
    version="v1",
    name="ConfigMap",
    plural="configmaps",
    namespaced=True,
    short_names=("cm",),
)
SERVICE: Final = Kind(
    group="",
    version="v1",
    name="Service",
    plural="services",
    namespaced=True,
    short_names=("svc",),
    subresources=("status",),
    categories=("all",),
    field_selectors=("spec.clusterIP", "spec.type"),
)
ENDPOINTS: Final = Kind(
    group="",
    version="v1",
    name="Endpoints",
    plural="endpoints",
    namespaced=True,
    short_names=("ep",),
)
EVENT: Final = Kind(
    group="",
    version="v1",
    name="Event",
    plural="events",
    namespaced=True,
    short_names=("ev",),
    field_selectors=(
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
)
SERVICE_ACCOUNT: Final = Kind(
    group="",
    version="v1",
    name="ServiceAccount",
    plural="serviceaccounts",
    namespaced=True,
    short_names=("sa",),
)
RESOURCE_QUOTA: Final = Kind(
    group="",
    version="v1",
    name="ResourceQuota",
    plural="resourcequotas",
    namespaced=True,
    short_names=("quota",),
    subresources=("status",),
)
STORAGE_CLASS: Final = Kind(
    group="storage.k8s.io",
    version="v1",
    name="StorageClass",
    plural="storageclasses",
    namespaced=False,
    short_names=("sc",),
)
VOLUME_ATTACHMENT: Final = Kind(
    group="storage.k8s.io",
    version="v1",
    name="VolumeAttachment",
    plural="volumeattachments",
    namespaced=False,
    subresources=("status",),
)
CSI_DRIVER: Final = Kind(
    group="storage.k8s.io",
    version="v1",
    name="CSIDriver",
    plural="csidrivers",
    namespaced=False,
)
CSI_NODE: Final = Kind(
    group="storage.k8s.io",
    version="v1",
    name="CSINode",
    plural="csinodes",
    namespaced=False,
)
CAPACITY: Final = Kind(
    group="storage.k8s.io",
    version="v1",
    name="CSIStorageCapacity",
    plural="csistoragecapacities",
    namespaced=True,
)
LEASE: Final = Kind(
    group="coordination.k8s.io",
    version="v1",
    name="Lease",
    plural="leases",
    namespaced=True,
)
SNAPSHOT_GROUP: Final = "snapshot.storage.k8s.io"
SNAPSHOT_CLASS: Final = Kind(
    group=SNAPSHOT_GROUP,
    version="v1",
    name="VolumeSnapshotClass",
    plural="volumesnapshotclasses",
    namespaced=False,
    short_names=("vsclass", "vsclasses"),
)
SNAPSHOT_CONTENT: Final = Kind(
    group=SNAPSHOT_GROUP,
    version="v1",
    name="VolumeSnapshotContent",
    plural="volumesnapshotcontents",
    namespaced=False,
    short_names=("vsc", "vscs"),
    subresources=("status",),
)
SNAPSHOT: Final = Kind(
    group=SNAPSHOT_GROUP,
    version="v1",
    name="VolumeSnapshot",
    plural="volumesnapshots",
    namespaced=True,
    short_names=("vs",),
    subresources=("status",),
)
DEPLOYMENT: Final = Kind(
    group="apps",
    version="v1",
    name="Deployment",
    plural="deployments",
    namespaced=True,
    short_names=("deploy",),
    subresources=("scale", "status"),
    categories=("all",),
)
REPLICA_SET: Final = Kind(
    group="apps",
    version="v1",
    name="ReplicaSet",
    plural="replicasets",
    namespaced=True,
    short_names=("rs",),
    subresources=("scale", "status"),
    categories=("all",),
    field_selectors=("status.replicas",),
)
STATEFUL_SET: Final = Kind(
    group="apps",
    version="v1",
    name="StatefulSet",
    plural="statefulsets",
    namespaced=True,
    short_names=("sts",),
    subresources=("scale", "status"),
    categories=("all",),
)
CONTROLLER_REVISION: Final = Kind(
    group="apps",
    version="v1",
    name="ControllerRevision",
    plural="controllerrevisions",
    namespaced=True,
)

ALL: Final = (
    NAMESPACE,
    NODE,
    POD,
    VOLUME,
    CLAIM,
    SECRET,
    CONFIG_MAP,
    SERVICE,
    ENDPOINTS,
    EVENT,
    SERVICE_ACCOUNT,
    RESOURCE_QUOTA,
    STORAGE_CLASS,
    VOLUME_ATTACHMENT,
    CSI_DRIVER,
    CSI_NODE,
    CAPACITY,
    LEASE,
    SNAPSHOT_CLASS,
    SNAPSHOT_CONTENT,
    SNAPSHOT,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    CONTROLLER_REVISION,
)

# What is asked by creating it and is not stored.
_AUTHENTICATION: Final = "authentication.k8s.io"
_AUTHORIZATION: Final = "authorization.k8s.io"
_ASKED: Final = ("create",)
TOKEN_REVIEW: Final = Kind(
    group=_AUTHENTICATION,
    version="v1",
    name="TokenReview",
    plural="tokenreviews",
    namespaced=False,
    verbs=_ASKED,
)
SELF_REVIEW: Final = Kind(
    group=_AUTHENTICATION,
    version="v1",
    name="SelfSubjectReview",
    plural="selfsubjectreviews",
    namespaced=False,
    verbs=_ASKED,
)
ACCESS_REVIEW: Final = Kind(
    group=_AUTHORIZATION,
    version="v1",
    name="SubjectAccessReview",
    plural="subjectaccessreviews",
    namespaced=False,
    verbs=_ASKED,
)
LOCAL_ACCESS_REVIEW: Final = Kind(
    group=_AUTHORIZATION,
    version="v1",
    name="LocalSubjectAccessReview",
    plural="localsubjectaccessreviews",
    namespaced=True,
    verbs=_ASKED,
)
SELF_ACCESS_REVIEW: Final = Kind(
    group=_AUTHORIZATION,
    version="v1",
    name="SelfSubjectAccessReview",
    plural="selfsubjectaccessreviews",
    namespaced=False,
    verbs=_ASKED,
)
SELF_RULES_REVIEW: Final = Kind(
    group=_AUTHORIZATION,
    version="v1",
    name="SelfSubjectRulesReview",
    plural="selfsubjectrulesreviews",
    namespaced=False,
    verbs=_ASKED,
)
REVIEWS: Final = (
    TOKEN_REVIEW,
    SELF_REVIEW,
    ACCESS_REVIEW,
    LOCAL_ACCESS_REVIEW,
    SELF_ACCESS_REVIEW,
    SELF_RULES_REVIEW,
)
SERVED: Final = (*ALL, *REVIEWS)
"""All that has a path of its own: `ALL`, which is what is stored, and the reviews."""

# What travels through subresources and is not stored.
SCALE: Final = Kind(
    group="autoscaling", version="v1", name="Scale", plural="scales", namespaced=True
)
EVICTION: Final = Kind(
    group="policy", version="v1", name="Eviction", plural="evictions", namespaced=True
)

_BY_PATH: Final = MappingProxyType({(k.group, k.version, k.plural): k for k in SERVED})
_BY_NAME: Final = MappingProxyType({(k.api_version, k.name): k for k in SERVED})


def find(group: str, version: str, plural: str) -> Kind | None:
    """Return the kind a path names; the core group is the empty string."""
    return _BY_PATH.get((group, version, plural))


def by_name(api_version: str, kind_name: str) -> Kind | None:
    """Return the kind an object's `apiVersion` and `kind` name."""
    return _BY_NAME.get((api_version, kind_name))
