"""The kubeconfig a running Holdfast hands out.

One cluster, one user, one context, all named ``holdfast``; those of other users
than the administrator have the user's name behind it. The authority's
certificate and the token are in the file itself, so that it can be copied to
another machine; it is therefore as secret as the token, and its mode is 0600.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdfast.kit import files

FILE_NAME = "kubeconfig"
NAME = "holdfast"


class KubeconfigError(Exception):
    """The file is missing, is not one of ours or cannot be written: which, and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs to talk to the API."""

    url: str
    authority: bytes  # PEM certificate that signed the server's
    token: str

    def __repr__(self) -> str:
        """Show the URL only; the token is a secret."""
        return f"Access(url={self.url!r})"


def path_in(data_dir: Path) -> Path:
    """Give where the kubeconfig of a data directory is."""
    return data_dir / FILE_NAME


def render(access: Access, user: str = "") -> str:
    """Give the file's text; `user` tells a user other than the administrator from it."""
    name = f"{NAME}-{user}" if user else NAME
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {
                "name": NAME,
                "cluster": {
                    "server": access.url,
                    "certificate-authority-data": base64.b64encode(access.authority).decode(),
                },
            }
        ],
        "users": [{"name": name, "user": {"token": access.token}}],
        "contexts": [{"name": name, "context": {"cluster": NAME, "user": name}}],
        "preferences": {},
    }
    return yaml.safe_dump(document, sort_keys=False, width=1 << 20)


def write(path: Path, access: Access) -> None:
    """Write the file for its owner only; readers never see half of it. Raises KubeconfigError."""
    try:
        files.write_atomic(path, render(access).encode(), mode=0o600)
    except OSError as error:
        raise KubeconfigError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path) -> Access:
    """Read what `write` wrote; raises KubeconfigError."""
    try:
        document: Any = yaml.safe_load(path.read_bytes())
        cluster = document["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"], validate=True)
        return Access(str(cluster["server"]), authority, str(document["users"][0]["user"]["token"]))
    except FileNotFoundError:
        raise KubeconfigError(
            f"there is no kubeconfig at {path}: start Holdfast first (holdfast up)"
        ) from None
    except OSError as error:
        raise KubeconfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, LookupError, TypeError, binascii.Error) as error:
        raise KubeconfigError(
            f"{path} is no kubeconfig of Holdfast: restart Holdfast, which writes it anew"
        ) from error
