"""What a sandbox is told, and whether a program would be found in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.node import sandbox
from holdfast.node.sandbox import Bind, Identity, Program


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("holdfast.node.mounts.may_mount", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install the package bubblewrap" in sandbox.obstacle()


def test_without_root_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in sandbox.obstacle()


def test_the_environment_is_in_no_argument_list() -> None:
    program = Program(("true",), "h", env={"PW": "geheim"})
    assert "geheim" in sandbox.arguments(program, Path("/root"))
    assert "geheim" not in " ".join(sandbox.command(program, session=True, bound=True))
    assert "geheim" not in repr(program)


def test_volumes_are_mounted_parents_first() -> None:
    binds = (Bind("/b", "/data/sub", read_only=True), Bind("/a", "/data"), Bind("/d", "/dev/x"))
    said = sandbox.arguments(Program(("true",), "h", binds=binds), Path("/root"))
    assert said.index("/data") < said.index("/data/sub")
    assert said[said.index("/data/sub") - 2] == "--ro-bind"


def test_dropped_capabilities_are_gone() -> None:
    assert "kill" in Identity().capabilities
    assert "kill" not in Identity(dropped=frozenset({"kill"})).capabilities
    assert Identity(dropped=frozenset({"all"})).capabilities == []


def test_programs_are_looked_for_where_the_sandbox_has_them(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    binds = [Bind(str(tmp_path), "/scripts")]
    assert sandbox.provides("/scripts/run", "", binds, ())
    assert not sandbox.provides("/scripts/other", "", binds, ())
    assert sandbox.provides("sh", "/nowhere:/bin", (), ())
    assert not sandbox.provides("no-such-program", "/bin", (), ())
    assert not sandbox.provides(str(tmp_path / "run"), "", (), ()), "a /tmp of its own"
    assert not sandbox.provides("/usr/bin/env", "", (), ("/usr/bin",))


@pytest.mark.root
def test_a_view_shows_the_machine_with_new_mount_points_and_goes_without_a_trace(
    tmp_path: Path,
) -> None:
    view = sandbox.View(tmp_path / "view")
    binds = (Bind(str(tmp_path), "/var/lib/no/such/place"), Bind(__file__, "/etc/one-file"))
    program = Program(("true",), "me", binds=binds, directory="/work")
    try:
        view.make(program)
        view.make(program)
        assert (view.root / "var/lib/no/such/place").is_dir()
        assert (view.root / "etc/one-file").is_file()
        assert (view.root / "etc/hostname").read_text() == "me\n"
        assert (view.root / "etc/passwd").read_text() == Path("/etc/passwd").read_text()
        with pytest.raises(OSError, match="Read-only"):
            (view.root / "etc/new").touch()
    finally:
        view.remove()
        view.remove()
    assert list(tmp_path.iterdir()) == []
    assert not Path("/var/lib/no").exists()
