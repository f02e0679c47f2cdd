"""The files an installation needs: vsphere.conf, Secret, class, packer variables, MetalLB.

Each function gives text or an object and changes nothing. Passwords appear only where the
caller says so; the file then is the caller's to keep.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import legacy
from holdfast.backends.vsphere.configuration import Center, Credentials, Workspace
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.sdk import vim
from holdfast.backends.vsphere.session import Session
from holdfast.kit import suggest

HIDDEN = "********"
NETWORK = "holdfast.dev/network"
PACKER = (
    "vcenter_server",
    "vcenter_username",
    "vcenter_password",
    "vcenter_cluster",
    "vcenter_datacenter",
    "vcenter_resource_pool",
    "vcenter_datastore",
    "vcenter_folder",
    "vm_network",
)
_PACKER_LINE = re.compile(r'\s*([a-z_]+)\s*=\s*"((?:[^"\\]|\\.)*)"\s*((#|//).*)?$')
# HCL's escapes; `${` and `%{` begin a template and are written with the first letter twice.
_ESCAPE = re.compile(
    r"\\(?:([nrt\"\\])|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|([$%])\5\{|([$%])\{"
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
# Private and public numbers of autonomous systems: RFC 6996 and 7607 leave out 0 and 65535.
_LARGEST_ASN = 4_294_967_294


def vsphere_conf(workspace: Workspace, *, secrets: bool) -> str:
    """Return a workspace as the in-tree provider's vsphere.conf."""
    home = workspace.home
    every = [_settings(each, workspace, secrets=secrets) for each in workspace.centers]
    # What a vCenter does not say itself it takes from [Global], so only what all say is there.
    common = {key: value for key, value in every[0].items() if all(key in one for one in every)}
    lines = ["[Global]", *_lines(common)]
    if workspace.cluster_id:
        lines.append(f"cluster-id = {_quoted(workspace.cluster_id)}")
    for center, own in zip(workspace.centers, every, strict=True):
        lines += ["", f"[VirtualCenter {_quoted(center.server)}]"]
        lines += _lines({key: value for key, value in own.items() if value != common.get(key)})
    lines += ["", "[Workspace]", f"server = {_quoted(home.server)}"]
    lines += [f"datacenter = {_quoted(workspace.datacenter)}"]
    lines += [f"folder = {_quoted(workspace.folder)}"]
    if workspace.default_datastore:
        lines.append(f"default-datastore = {_quoted(workspace.default_datastore)}")
    if workspace.resource_pool:
        lines.append(f"resourcepool-path = {_quoted(workspace.resource_pool)}")
    lines += ["", "[Disk]", f"scsicontrollertype = {workspace.controller}"]
    if workspace.public_network:
        lines += ["", "[Network]", f"public-network = {_quoted(workspace.public_network)}"]
    if workspace.tags.wanted:
        lines += ["", "[Labels]", f"region = {_quoted(workspace.tags.region_category)}"]
        lines += [f"zone = {_quoted(workspace.tags.zone_category)}"]
    return "\n".join(lines) + "\n"


def _settings(center: Center, workspace: Workspace, *, secrets: bool) -> dict[str, str]:
    """Return what vsphere.conf says of a vCenter."""
    found: dict[str, str] = {}
    if center.secret is not None:
        found["secret-name"] = center.secret.name
        found["secret-namespace"] = center.secret.namespace
    else:
        given = center.credentials()
        found["user"] = given.user
        found["password"] = given.password if secrets else HIDDEN
    found["port"] = str(center.port)
    found["insecure-flag"] = "1" if center.insecure else "0"
    found["datacenters"] = ",".join(center.datacenters) or workspace.datacenter
    rest = {"ca-file": center.ca_file, "thumbprint": center.thumbprint}
    return found | {key: value for key, value in rest.items() if value}


def _lines(settings: Mapping[str, str]) -> list[str]:
    return [f"{key} = {_quoted(value)}" for key, value in settings.items()]


def secret(workspace: Workspace, name: str, namespace: str, *, secrets: bool) -> dict[str, Any]:
    """Return the Secret with user and password of every vCenter."""
    data: dict[str, str] = {}
    for center in workspace.centers:
        given = center.credentials()
        data[f"{center.server}.username"] = given.user
        data[f"{center.server}.password"] = given.password if secrets else HIDDEN
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "stringData": data,
    }


def storage_class(name: str, parameters: Mapping[str, str], *, csi: bool) -> dict[str, Any]:
    """Return a class with these parameters, of the old or the new name."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": legacy.DRIVER if csi else legacy.PROVISIONER,
        "parameters": dict(parameters),
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer" if csi else "Immediate",
    }


def packer(values: Mapping[str, str]) -> str:
    """Return the variables of the image build as vsphere.auto.pkrvars.hcl."""
    return "".join(f"{key} = {_hcl(values[key])}\n" for key in PACKER)


def read_packer(text: str, where: str) -> dict[str, str]:
    """Read a variables file; raises errors.Invalid for lines and names that are wrong."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "//")):
            continue
        match = _PACKER_LINE.match(line)
        if match is None:
            raise errors.Invalid('no name = "value"', f"{where}:{number}", "")
        if match[1] not in PACKER:
            guess = suggest.nearest(match[1], PACKER)
            hint = f"did you mean {guess}?" if guess else f"there are: {', '.join(PACKER)}"
            raise errors.Invalid(f'unknown variable "{match[1]}"', f"{where}:{number}", hint)
        found[match[1]] = _read_hcl(match[2], f"{where}:{number}")
    missing = [key for key in PACKER if not found.get(key)]
    if missing:
        raise errors.Invalid(f"missing: {', '.join(missing)}", where, "set them")
    return found


def check_packer(link: Link, values: Mapping[str, str]) -> list[str]:
    """Return what of the variables is wrong in the vCenter, one line each."""
    wrong = _login_wrong(link, values)
    try:
        datacenter = link.reader.datacenter(values["vcenter_datacenter"])
    except errors.NotFound as error:
        return [f"vcenter_datacenter: {error}"]
    root = link.session.ref(vim.Datacenter, datacenter.moid)
    lists = (
        ("vcenter_cluster", vim.ComputeResource),
        ("vcenter_datastore", vim.Datastore),
        ("vm_network", vim.Network),
    )
    for key, kind in lists:
        if missing := _absent(link, key, values[key], kind, root):
            wrong.append(missing)
    cluster = f"{datacenter.path}/host/{values['vcenter_cluster']}"
    pool = values["vcenter_resource_pool"].strip("/")
    inside = pool if pool == "Resources" or pool.startswith("Resources/") else f"Resources/{pool}"
    if link.reader.at_path(f"{cluster}/{inside}") is None:
        wrong.append(f'vcenter_resource_pool: "{pool}" does not exist in the cluster')
    try:
        link.reader.folder(datacenter, values["vcenter_folder"])
    except errors.NotFound as error:
        wrong.append(f"vcenter_folder: {error.what}; {error.remedy}")
    return wrong


def _absent(link: Link, label: str, name: str, kind: Any, root: Any) -> str:
    """Return that there is nothing of a kind and name, with the nearest; empty when there is."""
    names = _names(link, kind, root)
    if name.rpartition("/")[2] in names:
        return ""
    guess = suggest.nearest(name, names)
    hint = f'; did you mean "{guess}"?' if guess else f"; there are: {', '.join(names[:8])}"
    return f'{label}: "{name}" does not exist{hint}'


def _login_wrong(link: Link, values: Mapping[str, str]) -> list[str]:
    """Log in as the image build would."""
    center, server = link.center, values["vcenter_server"]
    if server not in (center.server, center.name):
        return [f'vcenter_server: "{server}" is not {center.name}, which was asked for the rest']
    given = Credentials(values["vcenter_username"], values["vcenter_password"])
    session = Session(center, lambda: given)
    try:
        session.login()
    except errors.Unauthorized as error:
        return [f"vcenter_username, vcenter_password: {error.what}"]
    finally:
        session.close()
    return []


def _read_hcl(text: str, where: str) -> str:
    """Return what a quoted text of HCL means; raises errors.Invalid without quoting it."""

    def meaning(match: re.Match[str]) -> str:
        letter, short, long, unknown, doubled, template = match.groups()
        if unknown is not None:
            raise errors.Invalid("HCL has no such escape", where, "write \\\\ for one backslash")
        if template:
            remedy = f"write {template}{template}{{ for {template}{{"
            raise errors.Invalid("begins a template, which cannot be checked", where, remedy)
        if doubled:
            return f"{doubled}{{"
        return _LETTERS[letter] if letter else chr(int(short or long, 16))

    return _ESCAPE.sub(meaning, text)


def _hcl(text: str) -> str:
    """Return a text as HCL quotes it."""
    escaped = re.sub(r"([$%])\{", r"\1\1{", _quoted(text)[1:-1])
    for letter in "nrt":
        escaped = escaped.replace(_LETTERS[letter], f"\\{letter}")
    return f'"{escaped}"'


def _names(link: Link, kind: Any, root: Any) -> list[str]:
    return sorted(str(values.get("name")) for _, values in link.reader.under(kind, ["name"], root))


def packer_values(
    link: Link, *, cluster: str, network: str, pool: str, datastore: str, folder: str
) -> dict[str, str]:
    """Return the variables of the image build from what the configuration knows, and the rest."""
    workspace, given = link.workspace, link.session.credentials()
    return {
        "vcenter_server": link.center.name,
        "vcenter_username": given.user,
        "vcenter_password": given.password,
        "vcenter_cluster": cluster,
        "vcenter_datacenter": link.reader.datacenter(workspace.datacenter).name,
        "vcenter_resource_pool": pool or "Resources",
        "vcenter_datastore": datastore or workspace.default_datastore,
        "vcenter_folder": folder or workspace.folder,
        "vm_network": network,
    }


def check_network(link: Link, name: str) -> None:
    """Raise Invalid when the datacenter has no network of that name."""
    datacenter = link.reader.datacenter(link.workspace.datacenter)
    root = link.session.ref(vim.Datacenter, datacenter.moid)
    if wrong := _absent(link, "network", name, vim.Network, root):
        raise errors.Invalid(wrong, f"{link.session.where}, datacenter {datacenter.name}")


def metallb(
    peers: Sequence[str],
    peer_asn: int,
    own_asn: int,
    ranges: Sequence[str],
    name: str,
    *,
    network: str = "",
    frontend: str = "",
) -> list[dict[str, Any]]:
    """Return MetalLB's objects for BGP; raises errors.Invalid naming the wrong value.

    `network` is noted on the peers: the VLAN in which routers and nodes meet. `frontend` is the
    label, KEY or KEY=VALUE, of the nodes that have it.
    """
    for label, number in (("the routers' ASN", peer_asn), ("the cluster's ASN", own_asn)):
        if not 0 < number <= _LARGEST_ASN or number in (65535, 23456):
            raise errors.Invalid(f"{label} cannot be {number}", "MetalLB", "1 to 4294967294")
    if not re.fullmatch("[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", name):
        remedy = "use small letters, digits and dashes"
        raise errors.Invalid(f'no object can be called "{name}"', "MetalLB", remedy)
    addresses = [_range(each) for each in ranges]
    if not addresses or not peers:
        raise errors.Invalid("no router or no address range is given", "MetalLB", "")
    metadata: dict[str, Any] = {"namespace": "metallb-system"}
    noted = {**metadata, "annotations": {NETWORK: network}} if network else metadata
    key, _, value = frontend.partition("=")
    chosen = {"nodeSelectors": [{"matchLabels": {key: value}}]} if key else {}
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "metallb.io/v1beta2",
            "kind": "BGPPeer",
            "metadata": {"name": f"{name}-{number}", **noted},
            "spec": {
                "myASN": own_asn,
                "peerASN": peer_asn,
                "peerAddress": _address(peer),
                **chosen,
            },
        }
        for number, peer in enumerate(peers, 1)
    ]
    made.append(
        {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": {"name": name, **metadata},
            "spec": {"addresses": addresses},
        }
    )
    made.append(
        {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "BGPAdvertisement",
            "metadata": {"name": name, **metadata},
            "spec": {"ipAddressPools": [name], **chosen},
        }
    )
    return made


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError as error:
        raise errors.Invalid(f'"{text}" is no IP address', "MetalLB router", "") from error


def _range(text: str) -> str:
    first, dash, last = text.strip().partition("-")
    try:
        if not dash:
            return str(ipaddress.ip_network(text.strip()))
        low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
    except ValueError as error:
        remedy = "write 203.0.113.0/28 or 203.0.113.10-203.0.113.20"
        raise errors.Invalid(f'"{text}" is no range', "MetalLB addresses", remedy) from error
    if low.version != high.version or int(low) > int(high):
        raise errors.Invalid(f'"{text}" ends before it begins', "MetalLB addresses", "")
    return f"{low}-{high}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
