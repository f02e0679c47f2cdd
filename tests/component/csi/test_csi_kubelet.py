"""`holdfast node serve` as kubelet sees it: sockets, registration, restarts."""

from __future__ import annotations

import http.client
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import drivers
import machine
from holdfast.csi.wire import csi_pb2, pluginregistration_pb2
from holdfast.testing import csiclient


def _paths(kubelet: Path) -> tuple[Path, Path]:
    return (
        kubelet / "plugins" / drivers.LOCAL / "csi.sock",
        kubelet / "plugins_registry" / f"{drivers.LOCAL}-reg.sock",
    )


def _register(registration: Path, *, refused: str = "") -> str:
    """Do what kubelet does with a new socket, and give the driver's endpoint."""
    with csiclient.connect(registration) as plugin:
        info = plugin.registration.GetInfo(pluginregistration_pb2.InfoRequest())
        assert (info.type, info.name) == ("CSIPlugin", drivers.LOCAL)
        assert list(info.supported_versions) == ["1.0.0"]
        with csiclient.connect(Path(info.endpoint)) as driver:
            node = driver.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
            assert node.node_id == drivers.NODE
        status = pluginregistration_pb2.RegistrationStatus(
            plugin_registered=not refused, error=refused
        )
        plugin.registration.NotifyRegistrationStatus(status)
        endpoint: str = info.endpoint
        return endpoint


def test_kubelet_finds_registers_and_calls_the_driver(directory: Path) -> None:
    kubelet = directory / "kubelet"
    served, registration = _paths(kubelet)
    with drivers.Driver(directory) as driver:
        driver.start_for_kubelet(kubelet)
        machine.eventually(registration.is_socket)
        assert _register(registration) == str(served)
        assert stat.S_IMODE(served.stat().st_mode) == 0o600
        assert "registered with kubelet" in driver.log.read_text()
        assert driver.stop() == 0
        assert not served.exists()
        assert not registration.exists()


def test_sockets_of_a_killed_driver_are_replaced(directory: Path) -> None:
    kubelet = directory / "kubelet"
    served, registration = _paths(kubelet)
    with drivers.Driver(directory) as driver:
        driver.start_for_kubelet(kubelet, "--controller")
        machine.eventually(registration.is_socket)
        driver.kill()
        assert served.exists()
        driver.start_for_kubelet(kubelet, "--controller")
        machine.eventually(lambda: _answers(registration))
        _register(registration)
        driver.stop()


def test_a_second_driver_of_the_same_name_is_refused(directory: Path) -> None:
    with drivers.Driver(directory) as driver:
        driver.start()
        argv = [sys.executable, "-P", "-m", "holdfast.cli", "csi", "--driver", drivers.LOCAL]
        argv += ["--endpoint", f"unix://{driver.socket}", "--node"]
        argv += ["--data-dir", str(directory / "other")]
        env = {"PYTHONPATH": machine.PYTHONPATH, "HOME": str(directory)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "another process serves this socket" in done.stderr
        with csiclient.connect(driver.socket) as csi:
            assert csi.identity.Probe(csi_pb2.ProbeRequest()).ready.value


def test_two_controllers_on_one_directory_are_refused(directory: Path) -> None:
    with drivers.Driver(directory) as driver:
        driver.start()
        argv = [sys.executable, "-P", "-m", "holdfast.cli", "csi", "--driver", drivers.LOCAL]
        argv += ["--endpoint", f"unix://{directory}/other.sock"]
        argv += ["--data-dir", str(directory / "data")]
        env = {"PYTHONPATH": machine.PYTHONPATH, "HOME": str(directory)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "already runs on" in done.stderr


def test_a_registration_socket_that_was_swept_away_comes_back(directory: Path) -> None:
    kubelet = directory / "kubelet"
    registration = _paths(kubelet)[1]
    with drivers.Driver(directory) as driver:
        driver.start_for_kubelet(kubelet)
        machine.eventually(registration.is_socket)
        registration.unlink()
        machine.eventually(lambda: _answers(registration), 15)
        _register(registration)
        driver.stop()


def test_a_refusal_is_unhealthy_until_kubelet_takes_the_driver(directory: Path) -> None:
    kubelet = directory / "kubelet"
    registration = _paths(kubelet)[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with drivers.Driver(directory) as driver:
        driver.start_for_kubelet(kubelet, "--health", f"127.0.0.1:{port}")
        machine.eventually(registration.is_socket)
        machine.eventually(lambda: _health(port) == (200, "ok\n"))
        _register(registration, refused="no CSINode yet")
        assert _health(port) == (503, "kubelet refused the driver: no CSINode yet\n")
        before = registration.lstat().st_ctime_ns
        machine.eventually(lambda: _is_newer(registration, before), 20, "it is offered again")
        _register(registration)
        assert _health(port) == (200, "ok\n")
        driver.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["csi", "--endpoint", "unix:///tmp/x.sock", "--driver", "local.holdfast.de"], "did you"),
        (["csi", "--endpoint", "tcp://1.2.3.4:5", "--driver", "local.holdfast.dev"], "unix:///"),
        (["node", "serve", "--driver", "nobody.example.com"], "local.holdfast.dev"),
    ],
)
def test_a_wrong_name_or_socket_is_refused(
    directory: Path, arguments: list[str], text: str
) -> None:
    argv = [sys.executable, "-P", "-m", "holdfast.cli", *arguments]
    argv += ["--data-dir", str(directory / "data")]
    env = {"PYTHONPATH": machine.PYTHONPATH, "HOME": str(directory)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert text in done.stderr


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return path.exists() and probe.connect_ex(str(path)) == 0


def _is_newer(path: Path, before: int) -> bool:
    return path.exists() and path.lstat().st_ctime_ns > before and _answers(path)


def _health(port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()
