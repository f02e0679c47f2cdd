"""Storage policies: found by name, and asked which datastores they fit.

The simulator and some versions of vCenter answer about datastores nobody asked about, so
the answer is filtered by the question again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import faults
from holdfast.backends.vsphere.inventory import Datastore
from holdfast.backends.vsphere.sdk import pbm, vim
from holdfast.backends.vsphere.session import Session
from holdfast.kit import suggest

KEPT = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """A storage policy."""

    id: str
    name: str


class Policies:
    """The policies of one vCenter."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Policy]] | None = None

    def all(self) -> list[Policy]:
        """Return the policies for virtual disks, at most a minute old."""
        with self._lock:
            kept = self._kept
        if kept is not None and time.monotonic() - kept[0] < KEPT:
            return kept[1]
        with faults.translated(self._session.where):
            manager = self._session.pbm_content().profileManager
            kind = pbm.profile.ResourceType(resourceType="STORAGE")
            ids = manager.PbmQueryProfile(resourceType=kind, profileCategory="REQUIREMENT")
            found = manager.PbmRetrieveContent(ids) if ids else []
        policies = [Policy(each.profileId.uniqueId, each.name) for each in found]
        with self._lock:
            self._kept = (time.monotonic(), policies)
        return policies

    def named(self, name: str) -> Policy:
        """Return a policy; raises NotFound with the names there are."""
        found = self.all()
        for each in found:
            if each.name == name:
                return each
        guess = suggest.nearest(name, [each.name for each in found])
        names = ", ".join(each.name for each in found[:8]) or "none"
        raise errors.NotFound(
            f'no storage policy "{name}"',
            self._session.where,
            f'did you mean "{guess}"?' if guess else f"there are: {names}",
        )

    def compatible(self, policy: Policy, datastores: Sequence[Datastore]) -> list[Datastore]:
        """Return those of the datastores that satisfy the policy."""
        hubs = [
            pbm.placement.PlacementHub(hubType="Datastore", hubId=each.moid) for each in datastores
        ]
        wanted = pbm.placement.CapabilityProfileRequirement(
            profileId=pbm.profile.ProfileId(uniqueId=policy.id)
        )
        with faults.translated(self._session.where):
            solver = self._session.pbm_content().placementSolver
            results = solver.PbmCheckRequirements(
                hubsToSearch=hubs,
                placementSubjectRef=None,
                placementSubjectRequirement=[wanted],
            )
        good = {each.hub.hubId for each in results if not each.error}
        return [each for each in datastores if each.moid in good]


def profile(policy: Policy | None, raw: str = "") -> list[Any]:
    """Return what a disk's specification says about its policy."""
    if policy is not None:
        return [vim.vm.DefinedProfileSpec(profileId=policy.id)]
    if raw:
        data = vim.vm.ProfileRawData(extensionKey="com.vmware.vim.sps", objectData=raw)
        return [vim.vm.DefinedProfileSpec(profileId="", profileData=data)]
    return []
