"""Who asks: a JSON web token per request, as Heketi and its clients make them.

A token names its issuer, `admin` or `user`, and is bound to one method and path by `qsh`, the
SHA-256 of both. It is signed with the issuer's key. The expiry has no leeway; the time of issue may
lie a little in the future, because clocks differ. The invariant: keys never appear in texts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from holdfast.heketi import errors

ISSUED_LEEWAY = 120
_ALGORITHMS = ("HS256", "HS384", "HS512")
# What the role `user` may do; upstream lets it begin a volume but never see how that ended.
_USER_PATHS = ("/volumes",)


@dataclass(frozen=True, slots=True)
class Keys:
    """The shared secrets of the two roles."""

    admin: str = field(repr=False)
    user: str = field(repr=False)
    leeway: int = ISSUED_LEEWAY


def _jwt() -> Any:
    try:
        return importlib.import_module("jwt")
    except ImportError as error:
        raise errors.Refused(
            "authentication needs PyJWT, which is not installed: pip install pyjwt, "
            "or start with --disable-auth"
        ) from error


def qsh(method: str, path: str) -> str:
    """The claim that binds a token to a request."""
    return hashlib.sha256(f"{method}&{path}".encode()).hexdigest()


def token(role: str, key: str, method: str, path: str, seconds: int = 300) -> str:
    """A token as a client makes it."""
    now = int(time.time())
    claims = {"iss": role, "iat": now, "exp": now + seconds, "qsh": qsh(method, path)}
    with _any_key_length():
        return str(_jwt().encode(claims, key, algorithm="HS256"))


@contextlib.contextmanager
def _any_key_length() -> Iterator[None]:
    """Keys are the operator's choice since long ago; the library warns about short ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Gate:
    """Checks tokens."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._jwt = _jwt()

    def role(self, header: str, method: str, path: str) -> str:
        """Who asks; raises `Refused` with 400 or 401."""
        if not header:
            raise errors.Refused("Required authorization token not found", 401)
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not given or " " in given:
            raise errors.Refused("Authorization header format must be Bearer {token}", 400)
        claims = self._claims(given)
        issued = claims.get("iat")
        if isinstance(issued, int | float) and issued > time.time() + self._keys.leeway:
            raise _bad("Token used before issued (client and server clocks may differ)")
        if claims.get("qsh") != qsh(method, path):
            raise errors.Refused("Invalid qsh claim in token", 401)
        return str(claims["iss"])

    def _claims(self, given: str) -> dict[str, Any]:
        library = self._jwt
        try:
            issuer = library.decode(given, options={"verify_signature": False}).get("iss")
            if issuer is None:
                raise _bad("Token missing iss claim")
            key = {"admin": self._keys.admin, "user": self._keys.user}.get(issuer)
            if not key:
                raise _bad("Unknown user")
            options = {"verify_iat": False, "verify_aud": False, "require": ["exp"]}
            with _any_key_length():
                claims: dict[str, Any] = library.decode(
                    given, key, algorithms=list(_ALGORITHMS), options=options
                )
        except library.ExpiredSignatureError as error:
            raise _bad("Token is expired (client and server clocks may differ)") from error
        except library.InvalidSignatureError as error:
            raise _bad("signature is invalid (client and server secrets may not match)") from error
        except library.InvalidAlgorithmError as error:
            raise _bad("Unexpected signing method") from error
        except library.MissingRequiredClaimError as error:
            raise _bad(f"Token missing {error.claim} claim") from error
        except library.PyJWTError as error:
            raise _bad(str(error)) from error
        return claims


def _bad(why: str) -> errors.Refused:
    return errors.Refused(f"Invalid JWT token: {why}", 401)


def check_role(role: str, method: str, path: str) -> None:
    """Refuse the role `user` anything but making volumes and seeing them and how that went."""
    if role == "admin" or path in _USER_PATHS:
        return
    if method == "GET" and path.startswith(("/queue/", "/volumes/")):
        return
    raise errors.Refused("Administrator access required", 401)
