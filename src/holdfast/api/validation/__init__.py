"""What an object of each kind must look like, and what may change in it.

`of(kind)` returns the kind's `Rules`: create, update and status_update list what
is wrong (nothing means accepted), warnings list what is merely unwise. The write
path asks after defaulting and admission. The texts are Kubernetes' own, since
people and scripts know them.

Invariant: rules are pure and see only the objects given to them; whatever needs
another object (does the class exist, may it grow) belongs to admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.api.validation.attachments import AttachmentRules
from holdfast.api.validation.claims import ClaimRules
from holdfast.api.validation.classes import StorageClassRules
from holdfast.api.validation.cluster import EventRules, LeaseRules, NamespaceRules, NodeRules
from holdfast.api.validation.content import ConfigMapRules, SecretRules, ServiceAccountRules
from holdfast.api.validation.csi import CapacityRules, CSINodeRules, DriverRules
from holdfast.api.validation.pods import PodRules
from holdfast.api.validation.quotas import QuotaRules
from holdfast.api.validation.rules import Rules
from holdfast.api.validation.services import EndpointsRules, ServiceRules
from holdfast.api.validation.snapshots import (
    SnapshotClassRules,
    SnapshotContentRules,
    SnapshotRules,
)
from holdfast.api.validation.volumes import VolumeRules
from holdfast.api.validation.workloads import (
    DeploymentRules,
    ReplicaSetRules,
    RevisionRules,
    StatefulSetRules,
)

__all__ = ["RULES", "Rules", "of"]

RULES: Final[Mapping[Kind, Rules]] = MappingProxyType(
    {
        kinds.NAMESPACE: NamespaceRules(),
        kinds.NODE: NodeRules(),
        kinds.POD: PodRules(),
        kinds.VOLUME: VolumeRules(),
        kinds.CLAIM: ClaimRules(),
        kinds.SECRET: SecretRules(),
        kinds.CONFIG_MAP: ConfigMapRules(),
        kinds.SERVICE: ServiceRules(),
        kinds.ENDPOINTS: EndpointsRules(),
        kinds.EVENT: EventRules(),
        kinds.SERVICE_ACCOUNT: ServiceAccountRules(),
        kinds.RESOURCE_QUOTA: QuotaRules(),
        kinds.STORAGE_CLASS: StorageClassRules(),
        kinds.VOLUME_ATTACHMENT: AttachmentRules(),
        kinds.CSI_DRIVER: DriverRules(),
        kinds.CSI_NODE: CSINodeRules(),
        kinds.CAPACITY: CapacityRules(),
        kinds.LEASE: LeaseRules(),
        kinds.SNAPSHOT_CLASS: SnapshotClassRules(),
        kinds.SNAPSHOT_CONTENT: SnapshotContentRules(),
        kinds.SNAPSHOT: SnapshotRules(),
        kinds.DEPLOYMENT: DeploymentRules(),
        kinds.REPLICA_SET: ReplicaSetRules(),
        kinds.STATEFUL_SET: StatefulSetRules(),
        kinds.CONTROLLER_REVISION: RevisionRules(),
    }
)


def of(kind: Kind) -> Rules:
    """Return the rules of a served kind; KeyError for one this program does not serve."""
    return RULES[kind]
