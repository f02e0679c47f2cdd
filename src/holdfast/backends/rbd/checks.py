"""Prerequisites of Ceph volumes: one function per question, nothing is changed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from holdfast.backends import errors
from holdfast.backends.protocol import Finding, Severity
from holdfast.backends.rbd import bindings, capacity, failures, fencing, preparing, shelf
from holdfast.backends.rbd import monitors as monitors_
from holdfast.backends.rbd.clusters import DEFAULT_POOL, DEFAULT_USER, Clusters
from holdfast.backends.rbd.connections import Access, Connection
from holdfast.backends.rbd.settings import Instance

SKEW_SECONDS = 5.0
# A name no object has: removing it tests the right to write and removes nothing.
_NOTHING = "holdfast.check.no-such-object"
# An address of documentation: taking it off the blocklist takes nothing off.
_NOBODY = "192.0.2.1:0/1"


def run(clusters: Clusters) -> Iterator[Finding]:
    """Return the findings about this machine and every configured cluster."""
    found = of_bindings()
    yield found
    if found.severity == "error":
        return
    for instance in clusters.instances.values():
        yield from _of_instance(clusters, instance)


def of_bindings() -> Finding:
    """Tell whether Ceph's Python modules can be loaded."""
    try:
        modules = bindings.load()
    except errors.BackendError as error:
        return of_error("ceph bindings", error)
    version = modules.rados.Rados().version()
    return Finding("ceph bindings", "ok", f"librados {version} for this Python", "rados, rbd")


def of_error(check: str, error: errors.BackendError, severity: Severity = "error") -> Finding:
    """Make a finding of a failure."""
    return Finding(check, severity, error.what, error.where, error.remedy)


def of_monitors(monitors: tuple[str, ...]) -> Iterator[Finding]:
    """Tell which monitors accept a connection; one is enough to work."""
    silent = []
    for monitor in monitors:
        if reason := monitors_.unreachable(monitor):
            silent.append(f"{monitor} ({reason})")
    where = ",".join(monitors)
    if not silent:
        yield Finding("ceph monitors", "ok", f"{len(monitors)} reachable", where)
    else:
        all_of_them = len(silent) == len(monitors)
        yield Finding(
            "ceph monitors",
            "error" if all_of_them else "warning",
            f"not reachable: {', '.join(silent)}",
            where,
            "check the addresses, whether the monitors run (ceph mon stat), and firewalls",
        )


def of_cluster(clusters: Clusters, access: Access, pool: str, namespace: str) -> Iterator[Finding]:
    """Connect and test the key, the clocks, the pool and the user's rights."""
    where = f"client.{access.user} at {','.join(access.monitors)}"
    try:
        with clusters.connections.using(access) as connection:
            yield Finding("ceph key", "ok", "the monitors accept it", where)
            yield of_clocks(connection)
            yield from _of_pool(connection, pool, namespace)
    except errors.Unauthorized as error:
        yield of_error("ceph key", error)
    except errors.BackendError as error:
        yield of_error("ceph connection", error)


def of_clocks(connection: Connection) -> Finding:
    """Compare the monitors' clocks with each other and with this machine's."""
    where = connection.access.place
    remedy = "run chrony or ntpd on every machine: Ceph's tickets depend on the clock"
    try:
        health = capacity.command(connection, "health").get("checks", {})
        if "MON_CLOCK_SKEW" in health:
            said = health["MON_CLOCK_SKEW"].get("summary", {}).get("message", "clock skew")
            return Finding("ceph clocks", "warning", f"the monitors differ: {said}", where, remedy)
        stamp = str(capacity.command(connection, "report").get("timestamp", ""))
    except errors.BackendError as error:
        return of_error("ceph clocks", error, "warning")
    try:
        theirs = datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return Finding("ceph clocks", "ok", "the monitors agree", where)
    skew = (datetime.datetime.now(datetime.UTC) - theirs).total_seconds()
    if abs(skew) > SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        what = f"this machine's clock is {abs(skew):.0f} s {way} the cluster's"
        return Finding("ceph clocks", "error", what, where, remedy)
    return Finding("ceph clocks", "ok", f"within {SKEW_SECONDS:g} s of the cluster", where)


def _of_instance(clusters: Clusters, instance: Instance) -> Iterator[Finding]:
    yield from of_monitors(instance.monitors)
    try:
        found = instance.credentials()
    except errors.BackendError as error:
        yield of_error("ceph key", error)
        return
    if found is None:
        return
    access = Access(instance.monitors, found.user or instance.user or DEFAULT_USER, found.key)
    yield from of_cluster(clusters, access, instance.pool or DEFAULT_POOL, instance.namespace)


def _of_pool(connection: Connection, pool: str, namespace: str) -> Iterator[Finding]:
    where = f"pool {pool} of {connection.access.place}"
    try:
        found = shelf.Shelf(connection, "check", pool, namespace)
    except errors.BackendError as error:
        yield of_error("ceph pool", error)
        return
    try:
        enabled = capacity.command(connection, "osd pool application get", pool=pool)
        if "rbd" in enabled:
            yield Finding("ceph pool", "ok", "exists and is initialised for RBD", where)
        else:
            yield Finding(
                "ceph pool",
                "warning",
                "is not initialised for RBD",
                where,
                f"rbd pool init {pool}, or holdfast prepare ceph --pool {pool}",
            )
    except errors.BackendError as error:
        yield of_error("ceph pool", error, "warning")
    yield from _of_caps(found)


def _of_caps(found: shelf.Shelf) -> Iterator[Finding]:
    user = found.connection.access.user
    wanted = preparing.caps(preparing.Wish(found.pool, user))
    rights = " ".join(f"{daemon} '{right}'" for daemon, right in wanted.items())
    prepare = f"holdfast prepare ceph --pool {found.pool} --user {user}"
    # `ceph auth caps` takes away what it does not name, such as the rights in other pools.
    remedy = f"{prepare}; or, if it uses nothing else, ceph auth caps client.{user} {rights}"
    if not _may_write(found):
        what = f"client.{user} may not write to the pool"
        yield Finding("ceph caps", "error", what, found.where, remedy)
    elif not _may_list_fenced(found):
        what = f"client.{user} may not fence clients, so locks of lost nodes stay"
        yield Finding("ceph caps", "warning", what, found.where, remedy)
    elif not _may_unfence(found):
        what = f"client.{user} may fence clients and not take them off the list later"
        yield Finding("ceph caps", "warning", what, found.where, remedy)
    else:
        yield Finding("ceph caps", "ok", f"client.{user} may do what is needed", found.where)


def _may_list_fenced(found: shelf.Shelf) -> bool:
    try:
        capacity.command(found.connection, "osd blocklist ls")
    except errors.BackendError:
        return False
    return True


def _may_unfence(found: shelf.Shelf) -> bool:
    try:
        fencing.blocklist(found.connection, "rm", _NOBODY)
    except errors.Unauthorized:
        return False
    return True


def _may_write(found: shelf.Shelf) -> bool:
    try:
        found.context.remove_object(_NOTHING)
    except found.connection.modules.rados.Error as error:
        return failures.number_of(error) not in (1, 13)
    return True
