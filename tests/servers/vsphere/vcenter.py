"""A vCenter for tests: the simulator with an inventory, and govc as the witness beside it.

Each `VCenter` is a process of its own on a free port of loopback, with a certificate and a
password of its own; it is stopped by its pid. What a test believes about it is asked of
govc, which shares no code with what is tested.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

INSTALL = Path(__file__).resolve().parents[3] / "tools" / "servers" / "vsphere" / "install"
USER = "administrator@vsphere.local"
PASSWORD = 'S3cret!"#\\ä'
PATIENCE = 30.0


def programs() -> Path:
    """The directory with vcsim and govc; built now if they are missing."""
    done = subprocess.run([str(INSTALL)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"vcsim and govc cannot be built:\n{done.stderr}"
    return Path(done.stdout.strip())


class VCenter:
    """One simulated vCenter."""

    def __init__(self, directory: Path, *options: str, password: str = PASSWORD) -> None:
        self.directory = directory
        self.password = password
        self._programs = programs()
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "vcenter.pem"
        make_certificate(self.certificate, directory / "vcenter.key")
        secret = directory / "password"
        secret.write_text(password)
        self._argv = [
            str(self._programs / "vcsim"),
            *("-password-file", str(secret)),
            *("-tlscert", str(self.certificate), "-tlskey", str(directory / "vcenter.key")),
            *options,
        ]
        self._process = self._start()
        self.port = int(self._first_line().rpartition(":")[2])

    def restart(self, password: str = "") -> None:
        """Begin anew at the same address: sessions, disks and tags are gone."""
        self.stop()
        if password:
            self.password = password
            (self.directory / "password").write_text(password)
        self._process = self._start("-l", f"127.0.0.1:{self.port}")
        self._first_line()

    def _start(self, *options: str) -> subprocess.Popen[str]:
        # The simulator keeps its datastores in directories of their own below TMPDIR.
        environment = {**os.environ, "TMPDIR": str(self.directory)}
        self._log = (self.directory / "vcsim.log").open("ab")
        return subprocess.Popen(
            [*self._argv, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    @property
    def address(self) -> str:
        """How Holdfast calls it in ids."""
        return f"127.0.0.1:{self.port}"

    def settings(self, **more: object) -> dict[str, object]:
        """The keys of an instance that reaches it."""
        return {
            "server": "127.0.0.1",
            "port": self.port,
            "user": USER,
            "password": self.password,
            "ca_file": str(self.certificate),
            "datacenter": "DC0",
            **more,
        }

    def govc(self, *arguments: str, check: bool = True) -> str:
        """Run govc and return what it printed."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "GOVC_URL": f"https://127.0.0.1:{self.port}/sdk",
            "GOVC_USERNAME": USER,
            "GOVC_PASSWORD": self.password,
            "GOVC_INSECURE": "1",
            "GOVC_PERSIST_SESSION": "false",
            "GOVC_DATACENTER": "DC0",
        }
        done = subprocess.run(
            [str(self._programs / "govc"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        if check:
            assert done.returncode == 0, f"govc {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout if done.returncode == 0 else done.stderr

    def json(self, *arguments: str) -> Any:
        """Run govc with -json and return the document."""
        command, *rest = arguments
        return json.loads(self.govc(command, "-json", *rest))

    def files(self, datastore: str, directory: str, datacenter: str = "DC0") -> list[str]:
        """The names in a directory of a datastore, without the parts of disks."""
        path = f"[{datastore}] {directory}"
        said = self.govc(
            "datastore.ls", "-dc", datacenter, "-ds", datastore, directory, check=False
        )
        if "was not found" in said:
            return []
        return sorted(
            line for line in said.split() if not line.endswith("-flat.vmdk") and line != path
        )

    def devices_of(self, machine: str) -> list[dict[str, Any]]:
        """The devices of a VM as govc sees them."""
        found: list[dict[str, Any]] = self.json("device.info", "-vm", machine)["devices"]
        return found

    def disks_of(self, machine: str) -> list[dict[str, Any]]:
        """The virtual disks of a VM as govc sees them."""
        return [each for each in self.devices_of(machine) if each.get("type") == "VirtualDisk"]

    def attached(self, machine: str) -> list[str]:
        """The files of a VM's volumes: all its disks but those in its own directory."""
        own = machine.rpartition("/")[2]
        files = [each["backing"]["fileName"] for each in self.disks_of(machine)]
        return sorted(each for each in files if f"] {own}/" not in each)

    def uuid_of(self, machine: str) -> str:
        """The BIOS UUID of a VM."""
        found = self.json("vm.info", machine)["virtualMachines"][0]
        return str(found["config"]["uuid"])

    def machines(self, datacenter: str = "DC0") -> list[str]:
        """The paths of all VMs of a datacenter."""
        return sorted(self.govc("find", f"/{datacenter}/vm", "-type", "m").split())

    def gather(self, folder: str, machines: Sequence[str], datacenter: str = "DC0") -> None:
        """Make a VM folder and move VMs there, as node VMs have to be."""
        self.govc("folder.create", f"/{datacenter}/vm/{folder}")
        self.govc("object.mv", *machines, f"/{datacenter}/vm/{folder}")

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if waiting.select(0.5):
                    line = self._process.stdout.readline()
                    if line:
                        return line.strip()
                if self._process.poll() is not None:
                    break
        said = (self.directory / "vcsim.log").read_text()
        raise AssertionError(f"vcsim did not start: {said}")


def make_certificate(certificate: Path, key: Path) -> None:
    """Write a certificate for 127.0.0.1 that is its own CA, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vcenter.test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
