"""A Cinder driver: a volume is a sparse file, a connection to it is a loop device.

While `file_hold` exists, creations and copies wait before they touch the disk, so that a test
can end Cinder in the middle of one.
"""

from __future__ import annotations

import os
import subprocess
import time

from cinder import exception
from cinder.volume import driver
from oslo_config import cfg

OPTIONS = [
    cfg.StrOpt("file_dir"),
    cfg.StrOpt("file_hold"),
    cfg.IntOpt("file_capacity_gb", default=100),
]
GIB = 1 << 30


def run(*command):
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        said = f"{' '.join(command)}: {error.stderr}"
        raise exception.VolumeBackendAPIException(data=said) from error
    return done.stdout.strip()


class FileDriver(driver.VolumeDriver):
    """See the module's text."""

    VERSION = "1.0"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    def do_setup(self, context):
        self.directory = self.configuration.file_dir
        os.makedirs(self.directory, exist_ok=True)

    def check_for_setup_error(self):
        pass

    def _hold(self):
        while os.path.exists(self.configuration.file_hold):
            time.sleep(0.05)

    def _path(self, thing):
        return os.path.join(self.directory, thing["name"])

    def _loop(self, volume):
        return run("losetup", "-n", "-O", "NAME", "-j", self._path(volume))

    def create_volume(self, volume):
        self._hold()
        run("truncate", "-s", f"{volume['size']}G", self._path(volume))

    def _copy(self, source, target):
        run("cp", "--sparse=always", "--reflink=auto", source, target)

    def _make_from(self, source, volume):
        self._hold()
        self._copy(self._path(source), self._path(volume))
        run("truncate", "-s", f"{volume['size']}G", self._path(volume))

    def create_volume_from_snapshot(self, volume, snapshot):
        self._make_from(snapshot, volume)

    def create_cloned_volume(self, volume, src_vref):
        self._make_from(src_vref, volume)

    def create_snapshot(self, snapshot):
        self._copy(os.path.join(self.directory, snapshot["volume_name"]), self._path(snapshot))

    def delete_snapshot(self, snapshot):
        run("rm", "-f", self._path(snapshot))

    def delete_volume(self, volume):
        if self._loop(volume):
            raise exception.VolumeIsBusy(volume_name=volume["name"])
        run("rm", "-f", self._path(volume))

    def extend_volume(self, volume, new_size):
        run("truncate", "-s", f"{new_size}G", self._path(volume))
        if self._loop(volume):
            run("losetup", "-c", self._loop(volume))

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector):
        device = self._loop(volume) or run("losetup", "-f", "--show", self._path(volume))
        data = {"device_path": device, "volume_id": volume["id"]}
        return {"driver_volume_type": "local", "data": data}

    def terminate_connection(self, volume, connector, **kwargs):
        connected = [each for each in volume.volume_attachment if each.connection_info]
        # A loop device that is in use goes away when it is closed for the last time.
        if self._loop(volume) and len(connected) <= 1:
            run("losetup", "-d", self._loop(volume))

    def _update_volume_stats(self):
        capacity = self.configuration.file_capacity_gb
        sizes = [
            os.stat(os.path.join(self.directory, f)).st_size for f in os.listdir(self.directory)
        ]
        used = sum(sizes) // GIB
        name = self.configuration.safe_get("volume_backend_name")
        pool = {
            "pool_name": name,
            "total_capacity_gb": capacity,
            "free_capacity_gb": capacity - used,
            "allocated_capacity_gb": used,
            "provisioned_capacity_gb": used,
            "reserved_percentage": 0,
            "multiattach": True,
            "QoS_support": False,
            "thin_provisioning_support": False,
            "thick_provisioning_support": True,
        }
        self._stats = {
            "volume_backend_name": name,
            "vendor_name": "test",
            "driver_version": self.VERSION,
            "storage_protocol": "local",
            "pools": [pool],
        }
