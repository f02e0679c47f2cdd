"""Volumes of OpenStack Cinder, attached to servers through Nova or by Cinder itself.

`backend.CinderBackend` is the control side and `node_side.CinderNodeSide` the
part on the machine that uses a volume. Both read the clouds they know from
`[cinder.NAME]` of the configuration, whose usual content is the path of the
`cloud.conf` that Kubernetes' own cloud provider reads.

Invariant: openstacksdk is imported in `endpoint` and `preparing` only, when a
cloud is first asked. Everything else sees plain dicts, as the REST API
returned them.
"""
