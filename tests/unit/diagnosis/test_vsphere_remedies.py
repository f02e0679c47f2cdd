"""What vCenter's faults become in an event, and what `holdfast why` makes of it."""

from __future__ import annotations

import pytest

from holdfast.backends.vsphere import faults
from holdfast.backends.vsphere.sdk import vim, vmodl
from holdfast.diagnosis.causes import vsphere

WHERE = "vCenter vc.example"


@pytest.mark.parametrize(
    ("fault", "code", "command"),
    [
        (
            lambda: vim.fault.NoPermission(privilegeId="Datastore.FileManagement"),
            "privilege",
            "holdfast prepare vsphere roles",
        ),
        (lambda: vim.fault.InvalidLogin(), "login", "holdfast check vsphere"),
        (lambda: vim.fault.NoDiskSpace(datastore="ds"), "no-room", "govc datastore.info"),
        (lambda: vmodl.fault.HostCommunication(), "vcenter-away", "holdfast check vsphere"),
        (lambda: TimeoutError("timed out"), "vcenter-away", "holdfast check vsphere"),
    ],
    ids=["privilege", "login", "space", "host", "timeout"],
)
def test_a_fault_of_vcenter_is_known_by_the_text_of_its_event(
    fault: object, code: str, command: str
) -> None:
    assert callable(fault)
    found = vsphere.remedy("vsphere", str(faults.translate(fault(), WHERE)))
    assert found is not None
    assert found.code == code
    assert command in found.fix.splitlines()[0] + found.fix.splitlines()[-1]


def test_other_backends_and_unknown_texts_get_no_advice_from_here() -> None:
    assert vsphere.remedy("rbd", "InvalidLogin") is None
    assert vsphere.remedy("vsphere", "the moon is full") is None
