"""Addresses, and the texts of errors, without a server."""

from __future__ import annotations

import pytest

from holdfast.api import errors, kinds
from holdfast.runtime import http
from holdfast.runtime.http import HttpClient


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ((kinds.VOLUME,), "/api/v1/persistentvolumes"),
        ((kinds.VOLUME, "ignored", "pv1"), "/api/v1/persistentvolumes/pv1"),
        ((kinds.CLAIM,), "/api/v1/persistentvolumeclaims"),
        ((kinds.CLAIM, "a", "b"), "/api/v1/namespaces/a/persistentvolumeclaims/b"),
        ((kinds.POD, "a", "b", "status"), "/api/v1/namespaces/a/pods/b/status"),
        ((kinds.STORAGE_CLASS, None, "x"), "/apis/storage.k8s.io/v1/storageclasses/x"),
        ((kinds.NODE, None, "a/b?c#d"), "/api/v1/nodes/a%2Fb%3Fc%23d"),
        ((kinds.CLAIM, "../x", "y z"), "/api/v1/namespaces/..%2Fx/persistentvolumeclaims/y%20z"),
    ],
)
def test_paths_are_those_of_kubernetes(arguments: tuple[kinds.Kind, ...], path: str) -> None:
    assert http.path_of(*arguments) == path  # type: ignore[arg-type]


def test_an_empty_name_is_not_the_collection() -> None:
    with pytest.raises(errors.NotFound, match='persistentvolumes "" not found'):
        http.path_of(kinds.VOLUME, None, "")


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "umlaut-ä", "tab\there", "nul\0"])
def test_a_token_that_cannot_be_sent_is_refused_without_being_told(token: str) -> None:
    with pytest.raises(ValueError, match="bearer token") as caught:
        HttpClient("http://localhost", token=token)
    assert token not in str(caught.value) and token not in repr(caught.value)


async def test_the_line_break_of_a_token_file_is_no_part_of_it() -> None:
    async with HttpClient("http://localhost", token="abc\n") as client:
        assert client._http.headers["authorization"] == "Bearer abc"
