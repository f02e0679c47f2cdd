"""nova_all.py API METADATA HOST,HOST --config-file F: all of Nova as threads of one process."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import traceback
import warnings

warnings.simplefilter("ignore")
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"
from nova import monkey_patch  # noqa: E402

monkey_patch.patch(backend="threading")
import one_process  # noqa: E402, F401

import fakenode  # noqa: E402
import nova.conf  # noqa: E402
import os_brick  # noqa: E402
import os_vif  # noqa: E402
import waitress  # noqa: E402
from nova import config, context, objects, service, utils  # noqa: E402
from nova.compute import rpcapi  # noqa: E402
from nova.objects import host_mapping  # noqa: E402
from nova.virt import block_device  # noqa: E402
from oslo_log import log  # noqa: E402
from oslo_privsep import priv_context  # noqa: E402
from oslo_service import opts  # noqa: E402
from paste import deploy  # noqa: E402

CONF = nova.conf.CONF
# compute_driver is looked up below nova.virt only.
sys.modules["nova.virt.fakenode"] = fakenode
running = []


class HostConf:
    """CONF with the host of the compute service that asks; Nova detaches only its own guests'."""

    local = threading.local()

    def __getattr__(self, name):
        if name == "host":
            return getattr(self.local, "host", CONF.host)
        return getattr(CONF, name)


_detach = block_device.DriverVolumeBlockDevice._do_detach


def _detach_as_host(self, context, instance, volume_api, virt_driver, *args, **kwargs):
    HostConf.local.host = virt_driver._host
    return _detach(self, context, instance, volume_api, virt_driver, *args, **kwargs)


def start(binary, topic, **kwargs):
    """Start one service; the process ends when that fails."""
    try:
        made = service.Service.create(binary=binary, topic=topic, **kwargs)
        made.start()
        running.append(made)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the threads of the others would keep the process


def main():
    """Start everything and serve."""
    api, metadata, hosts = sys.argv[1:4]
    config.parse_args(["nova", *sys.argv[4:]])
    log.setup(CONF, "nova")
    opts.register_service_opts(CONF)
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    objects.register_all()
    os_brick.setup(CONF)
    os_vif.initialize()
    block_device.CONF = HostConf()
    block_device.DriverVolumeBlockDevice._do_detach = _detach_as_host
    start("nova-conductor", "conductor")
    for host in hosts.split(","):
        CONF.set_override("host", host)
        start("nova-compute", rpcapi.RPC_TOPIC, topic_alt=rpcapi.RPC_TOPIC_ALT, host=host)
    CONF.clear_override("host")
    host_mapping.discover_hosts(context.get_admin_context())
    start("nova-scheduler", "scheduler")
    for each in running:
        each.servicegroup_api._driver._report_state(each)
    made = {
        name: deploy.loadapp(f"config:{CONF.wsgi.api_paste_config}", name=name)
        for name in ("osapi_compute", "metadata")
    }
    serving = {"listen": metadata, "threads": 4, "ident": None}
    threading.Thread(
        target=waitress.serve, args=(made["metadata"],), kwargs=serving, daemon=True
    ).start()
    waitress.serve(made["osapi_compute"], listen=api, threads=8, ident=None)


main()
