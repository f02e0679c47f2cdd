"""`heketi-cli`: Heketi's own client, command for command, for our service and for Heketi's.

Commands, output texts and exit codes are those of Heketi's `heketi-cli`, because scripts read them.
"""

from holdfast.cli.heketi_cli.commands import command

__all__ = ["command"]
