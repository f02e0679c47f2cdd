"""Start etcd, kube-apiserver and kube-controller-manager on loopback, and end them by pid.

There is no kubelet and no scheduler: pods and nodes are objects that nobody acts on, which is
what tests of the API and of the storage controllers need. Everything is below one directory.
The binder looks at everything each second instead of every 15, so that tests need not wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ASSETS = "KUBEBUILDER_ASSETS"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")


class Failed(AssertionError):
    """The control plane did not come up; the text has the end of the log."""


class ControlPlane:
    """One real control plane; `url`, `token` and `authority` reach it."""

    def __init__(self, programs: Path, directory: Path) -> None:
        """`programs` is where the binaries are, `directory` holds all state and exists."""
        self._programs = programs
        self._directory = directory
        self._started: list[subprocess.Popen[bytes]] = []
        self.token = secrets.token_urlsafe(24)
        self.url = ""

    @property
    def authority(self) -> str:
        """The certificates that vouch for the server, as PEM text."""
        return (self._directory / "certificates" / "apiserver.crt").read_text()

    def start(self) -> ControlPlane:
        """Start everything and wait until it is ready; `Failed` when it does not get there."""
        missing = [name for name in PROGRAMS if not (self._programs / name).is_file()]
        if missing:
            raise Failed(f"{ASSETS} names {self._programs}, which has no {', '.join(missing)}")
        clients, peers, port = _free_ports(3)
        etcd = f"http://127.0.0.1:{clients}"
        self._start_etcd(etcd, f"http://127.0.0.1:{peers}")
        self._wait(f"{etcd}/health", "etcd")
        self.url = f"https://127.0.0.1:{port}"
        self._start_api_server(etcd, port)
        self._wait(f"{self.url}/readyz", "kube-apiserver")
        self._start_controllers()
        return self

    def stop(self) -> None:
        """End what was started, last first; nothing of it may remain."""
        for process in reversed(self._started):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._started.clear()

    def _start_etcd(self, clients: str, peers: str) -> None:
        self._run(
            "etcd",
            f"--data-dir={self._directory / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        )

    def _start_api_server(self, etcd: str, port: int) -> None:
        key = self._directory / "accounts.key"
        private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        tokens = self._directory / "tokens.csv"
        for path, content in (
            (key, private),
            (tokens, f'{self.token},admin,admin,"system:masters"\n'.encode()),
        ):
            path.touch(mode=0o600)
            path.write_bytes(content)
        self._run(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self._directory / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--advertise-address=127.0.0.1",
            # As every cluster has it: the node part of a storage driver mounts for the machine.
            "--allow-privileged=true",
            # Pods would have to wait for an account that no test is about.
            "--disable-admission-plugins=ServiceAccount",
        )

    def _start_controllers(self) -> None:
        config = self._directory / "controllers.kubeconfig"
        config.touch(mode=0o600)
        named = {"name": "test"}
        authority = str(self._directory / "certificates" / "apiserver.crt")
        cluster = {"server": self.url, "certificate-authority": authority}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**named, "cluster": cluster}],
            "users": [{**named, "user": {"token": self.token}}],
            "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        config.write_text(json.dumps(document))
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={config}",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--leader-elect=false",
            "--pvclaimbinder-sync-period=1s",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def _run(self, program: str, *options: str) -> None:
        with (self._directory / f"{program}.log").open("ab") as log:
            self._started.append(
                subprocess.Popen(
                    [str(self._programs / program), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                    env={"HOME": str(self._directory), "PATH": os.environ.get("PATH", "")},
                )
            )

    def _wait(self, url: str, program: str, seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not self._answers(url):
            log = self._directory / f"{program}.log"
            if self._started[-1].poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{program} is not ready:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)

    def _answers(self, url: str) -> bool:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        context = None
        with contextlib.suppress(OSError, urllib.error.URLError):
            if url.startswith("https"):
                context = ssl.create_default_context(cadata=self.authority)
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            with opener.open(request, timeout=5) as answer:
                return bool(answer.status == 200)
        return False


def _free_ports(count: int) -> list[int]:
    """Find ports nobody listens on; all are held until the last is found, so they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
