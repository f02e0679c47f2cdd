"""The ssh transport against a real ssh server: commands, exit codes, and who is trusted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.ssh import SshSettings, SshTransport


async def _serve(process: asyncssh.SSHServerProcess[str]) -> None:
    child = await asyncio.create_subprocess_shell(
        process.command or "", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    process.stdout.write(out.decode())
    process.stderr.write(err.decode())
    process.exit(child.returncode or 0)


@contextlib.asynccontextmanager
async def _node(directory: Path) -> AsyncIterator[tuple[int, SshSettings]]:
    client = asyncssh.generate_private_key("ssh-ed25519")
    host = asyncssh.generate_private_key("ssh-ed25519")
    client.write_private_key(directory / "id")
    client.write_public_key(directory / "id.pub")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        process_factory=_serve,
        authorized_client_keys=str(directory / "id.pub"),
    )
    port = server.get_port()
    known = directory / "known_hosts"
    public = host.export_public_key().decode()
    known.write_text(f"[127.0.0.1]:{port} {public}")
    try:
        yield port, SshSettings(directory / "id", "heketi", port, known_hosts=known)
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOCK", str(tmp_path / "lock"))


async def test_a_command_runs_there_and_its_words_arrive_as_they_were(tmp_path: Path) -> None:
    async with _node(tmp_path) as (_, settings):
        transport = SshTransport(settings)
        try:
            said = await transport.run("127.0.0.1", ["printf", "%s|", "a b", "$HOME", "';'"])
            assert said.stdout == "a b|$HOME|';'|"
            with pytest.raises(errors.ExecutionFailed, match="No such file"):
                await transport.run("127.0.0.1", ["ls", "/nosuch"])
            quiet = await transport.run("127.0.0.1", ["false"], check=False)
            assert quiet.code == 1
        finally:
            await transport.close()


async def test_a_host_whose_key_is_not_known_is_not_talked_to(tmp_path: Path) -> None:
    async with _node(tmp_path) as (port, settings):
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {other}")
        transport = SshTransport(settings)
        with pytest.raises(errors.Unreachable, match="add the node's key to known_hosts"):
            await transport.run("127.0.0.1", ["true"])


async def test_a_node_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async with _node(tmp_path) as (_, settings):
        pass
    transport = SshTransport(settings)
    with pytest.raises(errors.Unreachable):
        await transport.run("127.0.0.1", ["true"])
