"""Brings volumes to nodes and takes them away again, where the storage has to be asked for that.

`controller` is what kube-controller-manager's attach/detach controller is on a cluster: it decides
which volume belongs on which node and writes VolumeAttachments. `attacher` is external-attacher:
it carries them out over the backends, and `comparing` has it look again where the storage says
otherwise. `wanted` says who needs a volume where.

The invariant: an attachment is deleted only when no pod wants the volume on that node and the node
does not report it as in use; or when the node cannot be asked any more.
"""

from holdfast.controllers.attaching.attacher import AttachmentServer
from holdfast.controllers.attaching.comparing import Comparison
from holdfast.controllers.attaching.controller import COMPONENT, AttachDetachController

__all__ = ["COMPONENT", "AttachDetachController", "AttachmentServer", "Comparison"]
