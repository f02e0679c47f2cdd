"""Kubernetes persistent volumes from the storage a team already runs.

The package is a stack of layers; a module imports only from layers below its
own (docs/explanation/architecture.md draws them, import-linter enforces them).
Start reading at ``server`` for how the parts are wired, or at ``controllers``
for what happens to a claim.

``__version__`` is the one place in the source that names the release; a test
keeps it equal to the version of the distribution and of the changelog.
"""

__version__ = "0.1.0"
