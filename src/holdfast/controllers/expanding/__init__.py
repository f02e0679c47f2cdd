"""Makes volumes larger for claims that ask for more.

`expander` does the storage system's part, `progress` is how claims tell how far it is. Where a
file system or a device on a node has to follow, the node agent ends what was begun here
(`nodeagent.growing`).
"""

from holdfast.controllers.expanding.expander import COMPONENT, ExpandController

__all__ = ["COMPONENT", "ExpandController"]
