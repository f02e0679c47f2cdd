"""The devices of VMs as vCenter's answer has them, read without an object for each element.

To attach a disk, all devices of all node VMs are read: tens of thousands of elements in a large
cluster. pyVmomi makes a checked object of each, which took more time than everything else in an
attach. Here the answer is parsed by the standard library's C parser, and what is looked at is
taken out of it. A device that goes back to vCenter is given back whole, with all it came with.

Invariant: only reads come through here; a fault and a lost session mean what they mean elsewhere.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from holdfast.backends.vsphere import faults
from holdfast.backends.vsphere.sdk import soap, vim, vmodl
from holdfast.backends.vsphere.session import Session
from holdfast.backends.vsphere.sieves import Sieve

_VIM = "{urn:vim25}"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_WRAPPED = (
    '<device xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xsi:type="%s">%s</device>'
)
SCSI = {
    "ParaVirtualSCSIController": "pvscsi",
    "VirtualLsiLogicSASController": "lsilogic-sas",
    "VirtualLsiLogicController": "another",
    "VirtualBusLogicController": "another",
    "VirtualSCSIController": "another",
}


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a VM: what it is, where it hangs, and of a disk what it shows."""

    kind: str  # vSphere's name, VirtualDisk
    key: int
    controller: int | None = None
    unit: int | None = None
    bus: int | None = None
    backing: str = ""  # vSphere's name for the kind of backing
    files: tuple[str, ...] = ()  # the file in use, then those it is a difference to
    uuid: str = ""
    datastore: str = ""  # managed object id
    first_class: str = ""  # lower case
    mode: str = ""  # persistent, independent_persistent
    source: Element | None = field(default=None, repr=False, compare=False)

    @property
    def scsi(self) -> str:
        """The configuration's word for a SCSI controller; empty for other devices."""
        return SCSI.get(self.kind, "")

    @property
    def is_disk(self) -> bool:
        """Whether this is a virtual disk."""
        return self.kind == "VirtualDisk"

    def whole(self, session: Session) -> Any:
        """Return the device as pyVmomi's object, to be given back in a change of the VM."""
        children = "".join(_written(each) for each in self.source) if self.source else ""
        text = _WRAPPED % (self.kind, children)
        return soap.Deserialize(text.encode(), vim.vm.device.VirtualDevice, session)


def collect(
    session: Session, specs: Sequence[Any], sieve: Sieve | None = None
) -> Iterator[tuple[str, Mapping[str, Element]]]:
    """Give managed object id and properties, as elements, for filters of the PropertyCollector.

    A sieve leaves objects out before they are parsed.
    """
    options = vmodl.query.PropertyCollector.RetrieveOptions()
    with faults.translated(session.where):
        known = session.content.propertyCollector
        reader = vmodl.query.PropertyCollector(known._moId, _Answers(session, sieve))
        page = reader.RetrievePropertiesEx(list(specs), options)
        while True:
            for one in page.iter(f"{_VIM}objects"):
                yield (
                    _text(one, "obj"),
                    {
                        _text(each, "name"): value
                        for each in one.iterfind(f"{_VIM}propSet")
                        if (value := each.find(f"{_VIM}val")) is not None
                    },
                )
            token = next((each.text for each in page.iter(f"{_VIM}token")), None)
            if not token:
                return
            page = reader.ContinueRetrievePropertiesEx(token)


def read(value: Element | None) -> tuple[Device, ...]:
    """Return the devices of the property `config.hardware.device`."""
    return tuple(_device(each) for each in value) if value is not None else ()


def lost_session(page: Element) -> bool:
    """Return whether an answer could not be complete because nobody is logged in."""
    return any(
        fault.get(_TYPE, "").endswith("NotAuthenticated")
        for missing in page.iter(f"{_VIM}missingSet")
        for fault in missing.iter(f"{_VIM}fault")
    )


def _device(element: Element) -> Device:
    own = {each.tag: each for each in element}
    backing = own.get(f"{_VIM}backing")
    disk = own.get(f"{_VIM}vDiskId")
    return Device(
        kind=_kind(element),
        key=_number(own.get(f"{_VIM}key")) or 0,
        controller=_number(own.get(f"{_VIM}controllerKey")),
        unit=_number(own.get(f"{_VIM}unitNumber")),
        bus=_number(own.get(f"{_VIM}busNumber")),
        backing=_kind(backing) if backing is not None else "",
        files=tuple(_files(backing)),
        uuid=_text(backing, "uuid") if backing is not None else "",
        datastore=_text(backing, "datastore") if backing is not None else "",
        first_class=_text(disk, "id").lower() if disk is not None else "",
        mode=_text(backing, "diskMode") if backing is not None else "",
        source=element,
    )


def _files(backing: Element | None) -> Iterator[str]:
    while backing is not None:
        name = _text(backing, "fileName")
        if name:
            yield name
        backing = backing.find(f"{_VIM}parent")


def _kind(element: Element) -> str:
    # A prefix may stand for the namespace, which is vSphere's for every device.
    return element.get(_TYPE, "").rpartition(":")[2]


def _text(element: Element, name: str) -> str:
    return element.findtext(f"{_VIM}{name}") or ""


def _number(element: Element | None) -> int | None:
    return int(element.text) if element is not None and element.text else None


def _written(element: Element) -> str:
    """Return an element as vCenter wrote it: in the default namespace, types without prefix."""
    plain = Element("x")
    plain.append(_renamed(element))
    # Without namespaces nothing is declared, and what stands around it declares them all.
    return ElementTree.tostring(plain, encoding="unicode")[len("<x>") : -len("</x>")]


def _renamed(element: Element) -> Element:
    attributes = {("xsi:type" if k == _TYPE else k): v for k, v in element.attrib.items()}
    made = Element(element.tag.rpartition("}")[2], attributes)
    made.text = element.text
    made.extend(_renamed(each) for each in element)
    return made


class _Answers:
    """Stands where pyVmomi expects its stub, and gives an answer as its XML element."""

    def __init__(self, session: Session, sieve: Sieve | None) -> None:
        self._session = session
        self._sieve = sieve
        self.version, self.versionId = session.version, session.versionId

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:
        return self._session.call(self._exchange, lost_session, mo, info, args)

    def _exchange(self, transport: Any, mo: Any, info: Any, args: Any) -> tuple[int, Any]:
        headers = {
            "Cookie": transport.cookie,
            "SOAPAction": transport.versionId,
            "Content-Type": "text/xml; charset=UTF-8",
        }
        request = transport.SerializeRequest(mo, info, args)
        connection = transport.GetConnection()
        try:
            connection.request("POST", transport.path, request, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            transport.DropConnections()
            raise
        if answer.status not in (200, 500):
            connection.close()
            raise http.client.HTTPException(f"{answer.status} {answer.reason}")
        transport.ReturnConnection(connection)
        if answer.status == 200:
            text = self._sieve(content) if self._sieve is not None else content
            return 200, ElementTree.fromstring(text)
        fault = soap.SoapResponseDeserializer(self._session).Deserialize(content, info.result)
        return 500, fault
