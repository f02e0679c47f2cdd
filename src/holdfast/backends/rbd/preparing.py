"""Makes a Ceph cluster ready: a pool for images, and a user that may use it and no more.

What is there already is left as it is; what is missing is made; rights that are too
few are extended. With `dry_run` the same is found out and nothing is changed. The
least rights are Ceph's own profile `rbd`, for this pool only: make and remove images,
and fence a client that is lost; and beyond it, to take it off the blocklist again.

Needs an administrator of the cluster: its configuration file and keyring.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.backends import errors
from holdfast.backends.rbd import bindings, failures, ids

CONFIGURATION = Path("/etc/ceph/ceph.conf")
PLACEMENT_GROUPS = 32
# The profile lets a user add single clients to the blocklist, but take none off it.
UNFENCING = 'allow command "osd blocklist" with blocklistop=rm addr regex "^[^/]+/[0-9]+$"'


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be there afterwards."""

    pool: str = "kube"
    user: str = "kube"
    data_pool: str = ""
    placement_groups: int = PLACEMENT_GROUPS


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was found or made; `changed` is what was done, or would be."""

    what: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The result. The key is empty after a dry run that would have made the user."""

    steps: tuple[Step, ...]
    monitors: tuple[str, ...]
    key: str = field(repr=False)


def prepare(
    wish: Wish,
    *,
    configuration: Path = CONFIGURATION,
    admin: str = "admin",
    keyring: Path | None = None,
    dry_run: bool = False,
) -> Ready:
    """Do it, and return what was done. Blocks; may be repeated. Raises backends.errors."""
    for name, what in ((wish.pool, "pool"), (wish.data_pool, "pool"), (wish.user, "user")):
        if name:
            ids.check_name(name, what)
    modules = bindings.load()
    cluster = _connected(modules, configuration, admin, keyring)
    try:
        work = _Preparation(modules, cluster, wish, dry_run)
        steps = tuple(work.steps())
        return Ready(steps, work.monitors(), work.key())
    finally:
        cluster.shutdown()


def caps(wish: Wish) -> dict[str, str]:
    """Return the rights of the user, by daemon."""
    profiles = [f"profile rbd pool={pool}" for pool in (wish.pool, wish.data_pool) if pool]
    return {"mon": f"profile rbd, {UNFENCING}", "osd": ", ".join(profiles), "mgr": profiles[0]}


class _Preparation:
    def __init__(self, modules: bindings.Bindings, cluster: Any, wish: Wish, dry_run: bool) -> None:
        self._modules = modules
        self._cluster = cluster
        self._wish = wish
        self._dry_run = dry_run

    def steps(self) -> Iterator[Step]:
        yield from self._pool(self._wish.pool, images=True)
        if self._wish.data_pool:
            yield from self._pool(self._wish.data_pool, images=False)
        yield self._user()

    def monitors(self) -> tuple[str, ...]:
        """Return the monitors' addresses as HOST:PORT, of Ceph's old protocol where it is on."""
        found = []
        for monitor in self._ask("mon dump")["mons"]:
            addresses = {each["type"]: each["addr"] for each in monitor["public_addrs"]["addrvec"]}
            found.append(str(addresses.get("v1") or next(iter(addresses.values()))))
        return tuple(found)

    def key(self) -> str:
        entry = self._entry()
        return str(entry["key"]) if entry else ""

    def _pool(self, pool: str, *, images: bool) -> Iterator[Step]:
        exists = pool in self._ask("osd pool ls")
        groups = self._wish.placement_groups
        if not exists and not self._dry_run:
            self._ask("osd pool create", pool=pool, pg_num=groups)
        made = f"pool {pool} with {groups} placement groups"
        yield Step(f"pool {pool}" if exists else made, not exists)
        ready = exists and "rbd" in self._ask("osd pool application get", pool=pool)
        if not ready and not self._dry_run:
            self._initialise(pool, images)
        yield Step(f"pool {pool} is for RBD", not ready)

    def _initialise(self, pool: str, images: bool) -> None:
        if not images:
            self._ask("osd pool application enable", pool=pool, app="rbd")
            return
        with failures.translated("initialise the pool", pool):
            context = self._cluster.open_ioctx(pool)
            try:
                self._modules.rbd.RBD().pool_init(context, False)
            finally:
                context.close()

    def _user(self) -> Step:
        name, wanted = f"client.{self._wish.user}", caps(self._wish)
        entry = self._entry()
        if entry is not None and enough(entry.get("caps", {}), wanted):
            return Step(f"user {name} with the rights it needs", False)
        wanted = extended(entry.get("caps", {}), wanted) if entry else wanted
        flat = [text for pair in wanted.items() for text in pair]
        rights = " ".join(f"{daemon} '{right}'" for daemon, right in wanted.items())
        if not self._dry_run:
            prefix = "auth get-or-create" if entry is None else "auth caps"
            self._ask(prefix, entity=name, caps=flat)
        what = f"user {name}" if entry is None else f"rights of {name}"
        return Step(f"{what}: {rights}", True)

    def _entry(self) -> dict[str, Any] | None:
        found = self._ask("auth ls")["auth_dump"]
        name = f"client.{self._wish.user}"
        return next((each for each in found if each["entity"] == name), None)

    def _ask(self, prefix: str, **arguments: Any) -> Any:
        text = json.dumps({"prefix": prefix, "format": "json", **arguments})
        code, out, said = self._cluster.mon_command(text, b"")
        if code in (-1, -13):
            raise errors.Unauthorized(
                f"this user may not do `ceph {prefix}`", "Ceph", "use an administrator's keyring"
            )
        if code:
            raise errors.Unavailable(f"`ceph {prefix}` failed ({said or code})", "Ceph")
        return json.loads(out) if out.strip() else {}


def enough(has: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether rights contain those wanted: each of them, or everything."""
    for daemon, right in wanted.items():
        given = has.get(daemon, "")
        parts = {part.strip() for part in given.split(",")}
        if given != "allow *" and not {part.strip() for part in right.split(",")} <= parts:
            return False
    return True


def extended(has: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return what a user has and what it lacks: Ceph replaces all rights by those it is given."""
    found = dict(has)
    for daemon, right in wanted.items():
        if enough(has, {daemon: right}):
            continue
        given = has.get(daemon, "")
        parts = {part.strip() for part in given.split(",")}
        lacking = [part.strip() for part in right.split(",") if part.strip() not in parts]
        found[daemon] = ", ".join(filter(None, (given, *lacking)))
    return found


def _connected(
    modules: bindings.Bindings, configuration: Path, admin: str, keyring: Path | None
) -> Any:
    if not configuration.is_file():
        raise errors.NotFound(
            "no Ceph configuration",
            str(configuration),
            "copy /etc/ceph/ceph.conf of a monitor here, or name one with --conf",
        )
    settings = {"client_mount_timeout": "10", "log_to_stderr": "false", "err_to_stderr": "false"}
    if keyring is not None:
        settings["keyring"] = str(keyring)
    try:
        cluster = modules.rados.Rados(rados_id=admin, conffile=str(configuration), conf=settings)
        cluster.connect()
    except modules.rados.Error as error:
        raise errors.Unauthorized(
            f"cannot connect as client.{admin} ({error})",
            str(configuration),
            "name the administrator's keyring with --keyring, and check the monitors",
        ) from error
    return cluster
