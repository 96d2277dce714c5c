"""The driver as a process: its sockets, its health, its end, and what it tells the kubelet."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tests.csi.driver import MIB, capability
from tests.csi.process import DriverProcess, free_port, until

from coppice.csi import mounts
from coppice.csi.pool import PoolSettings
from coppice.csi.proto import csi_pb2
from coppice.csi.proto import pluginregistration_pb2 as registration
from coppice.csi.rpc import call

TIMEOUT = 30


@pytest.fixture
def driver(settings: PoolSettings, tmp_path: Path) -> Iterator[DriverProcess]:
    process = DriverProcess(
        settings,
        tmp_path / "driver",
        ("--registration-dir", str(tmp_path / "registry"), "--health-port", str(free_port())),
    )
    process.start()
    yield process
    process.kill()


@contextmanager
def channel(socket: Path) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"unix://{socket}") as opened:
        yield opened


def create(driver: DriverProcess, name: str) -> str:
    request = csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=MIB),
        volume_capabilities=[capability()],
        secrets={"password": "hunter2"},
    )
    with channel(driver.socket) as opened:
        service = csi_pb2.DESCRIPTOR.services_by_name["Controller"]
        return call(opened, service, "CreateVolume", request, timeout=TIMEOUT).volume.volume_id


def listed(driver: DriverProcess) -> list[str]:
    service = csi_pb2.DESCRIPTOR.services_by_name["Controller"]
    with channel(driver.socket) as opened:
        answer = call(opened, service, "ListVolumes", csi_pb2.ListVolumesRequest(), timeout=TIMEOUT)
    return [entry.volume.volume_id for entry in answer.entries]


def health(driver: DriverProcess) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", int(driver.options[-1]), timeout=TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_kubelet_learns_where_the_driver_is(driver: DriverProcess, tmp_path: Path) -> None:
    service = registration.DESCRIPTOR.services_by_name["Registration"]
    with channel(tmp_path / "registry" / "local.csi.coppice.dev-reg.sock") as opened:
        info = call(opened, service, "GetInfo", registration.InfoRequest(), timeout=TIMEOUT)
        verdict = registration.RegistrationStatus(plugin_registered=True)
        call(opened, service, "NotifyRegistrationStatus", verdict, timeout=TIMEOUT)
    assert info.type == "CSIPlugin"
    assert info.name == "local.csi.coppice.dev"
    assert info.endpoint == str(driver.socket)
    assert driver.stop() == 0


def test_a_driver_that_the_kubelet_refuses_ends_with_an_error(driver: DriverProcess, tmp_path: Path) -> None:
    service = registration.DESCRIPTOR.services_by_name["Registration"]
    with channel(tmp_path / "registry" / "local.csi.coppice.dev-reg.sock") as opened:
        verdict = registration.RegistrationStatus(plugin_registered=False, error="no such node")
        call(opened, service, "NotifyRegistrationStatus", verdict, timeout=TIMEOUT)
    assert driver.wait() == 1
    assert "the kubelet refused the driver: no such node" in driver.log.read_text()


def test_an_orderly_end_takes_the_sockets_away_and_leaves_the_volumes(driver: DriverProcess, tmp_path: Path) -> None:
    create(driver, "a")
    assert driver.stop() == 0
    assert not driver.socket.exists()
    assert list((tmp_path / "registry").iterdir()) == []
    assert mounts.at(mounts.read(), driver.settings.directory / "pool") is not None


def test_a_killed_driver_serves_again_at_its_old_sockets(driver: DriverProcess) -> None:
    volume = create(driver, "a")
    driver.kill()
    assert driver.socket.exists()
    driver.start()
    assert listed(driver) == [volume]


def test_health_is_that_of_the_pool(driver: DriverProcess) -> None:
    assert health(driver) == (200, "ok\n")
    mounts.unmount(driver.settings.directory / "pool")
    status, text = health(driver)
    assert status == 503
    assert "is not mounted any more" in text


def test_a_restart_mends_what_health_complains_of(driver: DriverProcess) -> None:
    volume = create(driver, "a")
    mounts.unmount(driver.settings.directory / "pool")
    driver.kill()
    driver.start()
    assert health(driver)[0] == 200
    assert listed(driver) == [volume]


def test_secrets_stay_out_of_the_log(driver: DriverProcess) -> None:
    create(driver, "a")
    log = driver.log.read_text()
    assert "CreateVolume a" in log
    assert "hunter2" not in log


def test_deleted_names_leave_the_catalogue(driver: DriverProcess) -> None:
    volume = create(driver, "a")
    record = driver.settings.directory / "pool" / "catalog" / "volumes" / f"{volume}.json"
    assert record.exists()
    service = csi_pb2.DESCRIPTOR.services_by_name["Controller"]
    with channel(driver.socket) as opened:
        call(opened, service, "DeleteVolume", csi_pb2.DeleteVolumeRequest(volume_id=volume), timeout=TIMEOUT)
    until(lambda: not record.exists())


def test_services_it_does_not_offer_are_unimplemented(driver: DriverProcess) -> None:
    service = csi_pb2.DESCRIPTOR.services_by_name["Node"]
    with channel(driver.socket) as opened, pytest.raises(grpc.RpcError) as error:
        call(opened, service, "NodeStageVolume", csi_pb2.NodeStageVolumeRequest(), timeout=TIMEOUT)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
