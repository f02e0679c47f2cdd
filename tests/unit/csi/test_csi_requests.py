"""Names, sizes, tokens, capabilities, codes and log lines of CSI."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import types
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.backends import errors
from holdfast.csi import capability, faults, naming, requests, sanitizing
from holdfast.csi.wire import csi_pb2
from machine import ROOT


def test_every_family_of_errors_has_a_code_and_none_is_internal() -> None:
    families = errors.BackendError.__subclasses__()
    assert len(families) >= 11
    codes = {family: faults.code_of(family("what")) for family in families}
    assert grpc.StatusCode.INTERNAL not in codes.values()
    assert codes[errors.NotFound] == grpc.StatusCode.NOT_FOUND
    assert codes[errors.Conflict] == grpc.StatusCode.FAILED_PRECONDITION
    assert codes[faults.Busy] == grpc.StatusCode.ABORTED


def test_the_reference_has_the_table_of_errors() -> None:
    text = (ROOT / "docs" / "reference" / "csi.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE))
    assert rows == {kind.__name__: code.name for kind, code in faults.CODES.items()}


def test_a_plain_name_stays_as_it_is() -> None:
    name = "pvc-0a1d527e-e6ba-bb0c"
    assert naming.of(name) == name


@given(st.lists(st.text(min_size=1, max_size=128), min_size=2, max_size=5, unique=True))
def test_different_names_stay_different_and_are_safe(names: list[str]) -> None:
    mapped = [naming.of(name) for name in names]
    assert len(set(mapped)) == len(names)
    assert mapped == [naming.of(name) for name in names]
    for each in mapped:
        assert len(each) <= 128
        assert each.isascii()
        assert "/" not in each
        assert not each.startswith(".")


def test_a_name_that_looks_mapped_is_mapped_again() -> None:
    mapped = naming.of("a/b")
    assert naming.of(mapped) != mapped


def test_a_name_that_is_too_long_is_refused() -> None:
    assert requests.name("a" * 128) == "a" * 128
    with pytest.raises(errors.Invalid):
        requests.name("a" * 129)


@pytest.mark.parametrize(
    ("least", "most", "size"), [(0, 0, 1 << 30), (5, 0, 5), (5, 9, 5), (0, 9, 9), (7, 7, 7)]
)
def test_the_size_lies_between_the_least_and_the_most(least: int, most: int, size: int) -> None:
    asked = csi_pb2.CapacityRange(required_bytes=least, limit_bytes=most)
    assert requests.size(asked) == size


def test_a_least_above_the_most_is_out_of_range() -> None:
    with pytest.raises(faults.OutOfRange):
        requests.size(csi_pb2.CapacityRange(required_bytes=9, limit_bytes=5))
    with pytest.raises(faults.OutOfRange):
        requests.check_limit(csi_pb2.CapacityRange(required_bytes=4, limit_bytes=5), 8)


@given(st.text(min_size=1).filter(str.isprintable))
def test_a_token_comes_back_as_the_backend_gave_it(after: str) -> None:
    assert requests.page(3, requests.token(after)) == (3, after)


@pytest.mark.parametrize("token", ["invalid-token", "AAAA", "-", "1:x", "x" * 200])
def test_a_token_of_nobody_is_refused(token: str) -> None:
    with pytest.raises(faults.BadToken):
        requests.page(0, token)


def _mount(mode: str = "SINGLE_NODE_WRITER", fs_type: str = "") -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(fs_type=fs_type),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=mode),
    )


def test_capabilities_are_read_in_kubernetes_words() -> None:
    wish = capability.read_all([_mount("MULTI_NODE_READER_ONLY"), _mount("SINGLE_NODE_WRITER")])
    assert wish.access == ("ReadOnlyMany", "ReadWriteOnce")
    assert wish.mode == "Filesystem"
    assert capability.read(_mount("SINGLE_NODE_SINGLE_WRITER")).single_writer
    assert capability.read(_mount("MULTI_NODE_READER_ONLY")).read_only


def test_every_access_mode_of_csi_is_known() -> None:
    modes = csi_pb2.VolumeCapability.AccessMode.Mode.values()
    assert set(capability.ACCESS) == set(modes) - {0}


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [csi_pb2.VolumeCapability(access_mode=_mount().access_mode)],
        [csi_pb2.VolumeCapability(mount=_mount().mount)],
        [
            _mount(),
            csi_pb2.VolumeCapability(
                block=csi_pb2.VolumeCapability.BlockVolume(), access_mode=_mount().access_mode
            ),
        ],
        [_mount(fs_type="ext4"), _mount(fs_type="xfs")],
    ],
)
def test_capabilities_that_say_nothing_or_contradict_are_refused(
    asked: list[csi_pb2.VolumeCapability],
) -> None:
    with pytest.raises(errors.Invalid):
        capability.read_all(asked)


def test_the_log_shows_a_request_without_its_secrets() -> None:
    request = csi_pb2.NodeStageVolumeRequest(
        volume_id="a", secrets={"key": "AQBw0rd=="}, volume_context={"pool": "rbd"}
    )
    text = sanitizing.text(request)
    assert "AQBw0rd" not in text
    assert text == "{volume_id: 'a', secrets: ***, volume_context: {pool: 'rbd'}}"
    assert list(sanitizing.secrets(request)) == ["AQBw0rd=="]


def test_every_field_that_holds_secrets_is_known_by_its_mark() -> None:
    marked = 0
    for descriptor in csi_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in descriptor.fields:
            if field.name == "secrets":
                assert sanitizing._is_secret(field), f"{descriptor.name}.{field.name}"
                marked += 1
    assert marked >= 15


def test_a_secret_in_the_text_of_an_error_is_blotted_out() -> None:
    assert faults.redacted("key AQB123 refused", ["AQB123", "key"]) == "key *** refused"


def test_the_generated_modules_are_what_the_generator_makes(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    assert _generator().main([str(tmp_path)]) == 0
    wire = Path("holdfast", "csi", "wire")
    made = sorted(path.name for path in (tmp_path / wire).iterdir())
    assert made == sorted(path.name for path in (ROOT / "src" / wire).glob("*_pb2.py*"))
    for name in made:
        committed = (ROOT / "src" / wire / name).read_text()
        assert (tmp_path / wire / name).read_text() == committed, f"run tools/generate_csi: {name}"


def _generator() -> types.ModuleType:
    path = str(ROOT / "tools" / "generate_csi")
    loader = importlib.machinery.SourceFileLoader("generate_csi", path)
    spec = importlib.util.spec_from_loader("generate_csi", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
