"""Tests one class with its Secret: what it says, and what it leads to.

The questions are those that cost people days: is the Secret's value a key, is it
this user's, does the pool exist, may the user write to it. The first error that
makes the rest pointless ends the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holdfast.backends import errors
from holdfast.backends.protocol import Finding
from holdfast.backends.rbd import checks, features, parameters
from holdfast.backends.rbd.clusters import Clusters


def run(
    clusters: Clusters, given: Mapping[str, str], secrets: Mapping[str, str]
) -> Iterator[Finding]:
    """Return the findings about a class."""
    try:
        chosen = parameters.read(given)
    except errors.BackendError as error:
        yield checks.of_error("class parameters", error)
        return
    names = ", ".join(features.names(chosen.features))
    yield Finding("class parameters", "ok", f"images get the features {names}", "")
    bindings = checks.of_bindings()
    if bindings.severity == "error":
        yield bindings
        return
    try:
        place = clusters.of_class(chosen, secrets)
    except errors.Unauthorized as error:
        yield checks.of_error("ceph secret", error)
        return
    except errors.BackendError as error:
        yield checks.of_error("class parameters", error)
        return
    yield Finding("ceph secret", "ok", f"holds a key for client.{place.access.user}", "")
    yield from checks.of_monitors(place.access.monitors)
    yield from checks.of_cluster(clusters, place.access, place.pool, place.namespace)
    if place.data_pool:
        yield from _data_pool(clusters, place.data_pool, chosen, secrets)


def _data_pool(
    clusters: Clusters,
    name: str,
    chosen: parameters.RbdParameters,
    secrets: Mapping[str, str],
) -> Iterator[Finding]:
    place = clusters.of_class(chosen, secrets)
    try:
        with clusters.connections.using(place.access) as connection:
            connection.pool(name)
    except errors.BackendError as error:
        yield checks.of_error("ceph data pool", error)
    else:
        yield Finding("ceph data pool", "ok", "exists", f"pool {name}")
