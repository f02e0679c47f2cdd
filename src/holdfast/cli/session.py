"""What commands need that look at storage themselves: the API, the backends, the node sides.

They open their own, beside those of a Holdfast that runs, and only read: a command never changes
a volume.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast.backends.secretrefs import SecretRef, SecretSource
from holdfast.cli import terminal
from holdfast.runtime import access
from holdfast.runtime.http import HttpClient
from holdfast.server import assemble, config, kubeconfig, machines, systems

# What people call a system, where that is not the name of its backend.
KINDS = {
    "ceph": "rbd",
    "openstack": "cinder",
    "glusterfs": "gluster",
    "heketi": "gluster",
    "vcenter": "vsphere",
}


def kind_of(word: str) -> str:
    """Return the backend somebody means. Raises CommandError."""
    from holdfast.backends import registry
    from holdfast.kit import suggest

    known = {"local", *registry.BACKENDS, *registry.NODE_SIDES}
    kind = KINDS.get(word, word)
    if kind in known:
        return kind
    hint = suggest.hint(word, sorted({*known, *KINDS}))
    raise terminal.CommandError(f"there is no storage system {word!r} here; {hint}")


@asynccontextmanager
async def api(data_dir: Path, path: Path | None = None) -> AsyncIterator[HttpClient]:
    """Connect to the API that `cluster` finds. Raises CommandError."""
    async with cluster(data_dir, path).client(timeout=15.0) as client:
        yield client


def secret_source(data_dir: Path, path: Path | None = None) -> SecretSource:
    """Return what reads Secrets from the API that `cluster` finds, with a connection for each."""

    async def read(ref: SecretRef) -> Mapping[str, str]:
        from holdfast.backends import errors
        from holdfast.controllers import secrets

        try:
            async with api(data_dir, path) as client:
                return await secrets.SecretReader(client).read(ref)
        except (terminal.CommandError, OSError) as error:
            what = f"no Kubernetes API that has it answers ({error})"
            raise errors.Unauthorized(what, f"secret {ref}", "start Holdfast") from error

    return read


def cluster(data_dir: Path, path: Path | None) -> access.Access:
    """Return the way to the API: a file's, else the data directory's, else kubectl's own.

    Raises CommandError.
    """
    own = kubeconfig.path_in(data_dir)
    here = own.exists()
    try:
        return access.find(path or (own if here else None))
    except access.AccessError as error:
        hint = "" if path or here else f" (no Holdfast was started in {data_dir}: holdfast up)"
        raise terminal.CommandError(f"{error}{hint}") from error


def is_own(data_dir: Path, path: Path | None) -> bool:
    """Return whether `cluster` finds the Holdfast of the data directory itself."""
    own = kubeconfig.path_in(data_dir)
    return own.exists() and (path is None or (path.exists() and path.samefile(own)))


@asynccontextmanager
async def storage(
    settings: config.Config, path: Path | None = None
) -> AsyncIterator[tuple[systems.Backends, systems.NodeSides]]:
    """Open the backends and this machine's node sides when they are used, and close them.

    Secrets that a storage system's configuration names are read from the API that `cluster` finds.
    """
    count = settings.nodes.count or machines.remembered(settings.data_dir).count
    names = machines.names(settings.node_name, count)
    local = assemble.local_backend(settings.data_dir, names, lambda name: "")
    secrets = secret_source(settings.data_dir, path)
    backends = systems.Backends(settings.data_dir, settings.storage, {"local": local}, secrets)
    root = settings.data_dir / "nodes" / settings.node_name
    sides = systems.NodeSides(root, settings.storage, {}, secrets)
    try:
        yield backends, sides
    finally:
        await sides.close()
        await backends.close()
