"""Which values look encoded once too often."""

from __future__ import annotations

import base64

import pytest

from holdfast.diagnosis import secretchecks

CEPH_KEY = base64.b64encode(bytes(range(1, 29))).decode()


@pytest.mark.parametrize(
    ("value", "twice"),
    [
        (CEPH_KEY, False),
        (base64.b64encode(CEPH_KEY.encode()).decode(), True),
        (base64.b64encode(b"[Global]\nauth-url=http://x\n").decode(), True),
        ("password", False),
        ("correct horse battery staple", False),
        ("[Global]\nauth-url=http://x\n", False),
        ("", False),
    ],
)
def test_a_key_is_told_from_its_encoding(value: str, twice: bool) -> None:
    assert secretchecks.encoded_twice(value) is twice
