"""cinder_all.py ADDRESS --config-file F: Cinder's API, scheduler and volume services as threads."""

from __future__ import annotations

import os
import shlex
import sys
import warnings

warnings.simplefilter("ignore")
os.environ["OS_CINDER_DISABLE_EVENTLET_PATCHING"] = "1"
from cinder import monkey_patch  # noqa: E402

monkey_patch.patch()
import one_process  # noqa: E402, F401

import cinder.cmd.volume  # noqa: E402, F401 - registers options
import os_brick  # noqa: E402
import waitress  # noqa: E402
from cinder import context, coordination, objects, rpc, service, utils, version  # noqa: E402
from cinder.common import config  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log  # noqa: E402
from oslo_privsep import priv_context  # noqa: E402
from oslo_service import wsgi  # noqa: E402

CONF = cfg.CONF


def report_state(self):
    """Cinder's own keeps the service's id on the class: one service a process."""
    record = objects.Service.get_by_id(context.get_admin_context(), self.origin_service_id)
    record.report_count += 1
    record.save(retry=False)


def main():
    """Start everything and serve."""
    objects.register_all()
    CONF(sys.argv[2:], project="cinder", version=version.version_string())
    log.setup(CONF, "cinder")
    config.set_middleware_defaults()
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    coordination.COORDINATOR.start()
    rpc.init(CONF)
    service.Service.report_state = report_state
    services = [
        service.Service.create(
            host=f"{CONF.host}@{backend}",
            service_name=backend,
            binary="cinder-volume",
            coordination=True,
        )
        for backend in CONF.enabled_backends
    ]
    services.append(service.Service.create(binary="cinder-scheduler"))
    for each in services:
        each.start()
        # A heartbeat at once: after a restart they would count as down for a while.
        each.report_state()
    # Whose half-done work a restart cleans up.
    service.Service.service_id = services[0].origin_service_id
    application = wsgi.Loader(CONF).load_app(name="osapi_volume")
    waitress.serve(application, listen=sys.argv[1], threads=8, ident=None)


main()
