"""Nova's fake hypervisor, which also leaves what a guest would see in $GUESTS/<server name>/.

dev/disk/by-id/virtio-<first 20 letters of the volume's id> leads to the volume's loop device,
mnt/config/ holds the config drive's files, var/lib/cloud/data/instance-id is cloud-init's.
"""

from __future__ import annotations

import os
import shutil
import uuid

from nova import context as nova_context
from nova import objects
from nova.api.metadata import base as metadata
from nova.virt import fake

GUESTS = os.environ["GUESTS"]


class NodeDriver(fake.PredictableNodeUUIDDriver):
    """See the module's text; the nodes' uuids outlive a restart."""

    vcpus, memory_mb, local_gb = 1000, 800000, 600000

    def get_nodenames_by_uuid(self, refresh=False):
        return {str(uuid.uuid5(uuid.NAMESPACE_DNS, n)): n for n in self.get_available_nodes()}

    def _directory(self, instance, *more):
        path = os.path.join(GUESTS, instance.display_name, *more)
        os.makedirs(path, exist_ok=True)
        return path

    def _link(self, connection_info, instance, present):
        data = connection_info["data"]
        volume = connection_info.get("serial") or data.get("volume_id")
        link = os.path.join(self._directory(instance, "dev/disk/by-id"), f"virtio-{volume[:20]}")
        if os.path.lexists(link):
            os.unlink(link)
        if present and data.get("device_path"):
            os.symlink(data["device_path"], link)

    def init_host(self, host):
        super().init_host(host)
        found = objects.InstanceList.get_by_filters(
            nova_context.get_admin_context(),
            {"host": host, "deleted": False},
            expected_attrs=["flavor"],
        )
        # A real hypervisor keeps its guests when Nova restarts.
        for each in found:
            if each.vm_state not in ("error", "building"):
                self.instances[each.uuid] = fake.FakeInstance(
                    each.name, each.power_state, each.uuid
                )

    def spawn(
        self,
        context,
        instance,
        image_meta,
        injected_files,
        admin_password,
        allocations,
        network_info=None,
        block_device_info=None,
        power_on=True,
        accel_info=None,
    ):
        super().spawn(
            context,
            instance,
            image_meta,
            injected_files,
            admin_password,
            allocations,
            network_info,
            block_device_info,
            power_on,
            accel_info,
        )
        about = metadata.InstanceMetadata(
            instance, content=injected_files, network_info=network_info
        )
        for name, data in about.metadata_for_config_drive():
            path = os.path.join(self._directory(instance, "mnt/config"), name.lstrip("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(data if isinstance(data, bytes) else data.encode())
        cloud_init = self._directory(instance, "var/lib/cloud/data")
        with open(os.path.join(cloud_init, "instance-id"), "w") as stream:
            stream.write(f"{instance.uuid}\n")
        for each in (block_device_info or {}).get("block_device_mapping", []):
            self._link(each["connection_info"], instance, True)

    def destroy(self, context, instance, *args, **kwargs):
        super().destroy(context, instance, *args, **kwargs)
        shutil.rmtree(os.path.join(GUESTS, instance.display_name), ignore_errors=True)

    def attach_volume(self, context, connection_info, instance, mountpoint, *args, **kwargs):
        super().attach_volume(context, connection_info, instance, mountpoint, *args, **kwargs)
        self._link(connection_info, instance, True)

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None):
        super().detach_volume(context, connection_info, instance, mountpoint, encryption)
        self._link(connection_info, instance, False)
