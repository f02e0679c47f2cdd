"""A client of the Heketi REST API: signed requests, work in the background, errors with a remedy.

What takes long is answered with a ticket that is asked again until the work is done. The ticket's
result may be read only once from Heketi itself, and is lost when it restarts; whoever finds it gone
gets `Lost`, and looks whether the work was done.

Invariant: the key goes into a signature and nowhere else, no text of an error included.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2
import msgspec

from holdfast.backends import errors
from holdfast.backends.gluster import documents, tokens

_ANSWER_SECONDS = 30.0
# Making volumes on slow disks takes minutes; Heketi's own client waits without an end.
WORK_SECONDS = 600.0
_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0
# Too many requests at once are refused; a few seconds later there is room again.
_BUSY_ATTEMPTS, _BUSY_SECONDS = 4, 1.0
T = TypeVar("T")


class Lost(errors.Unavailable):
    """It is not known how the work ended: the service has forgotten its ticket."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """As whom the service is asked. Without a key, requests carry no token."""

    user: str = ""
    key: str = field(default="", repr=False)


class Service:
    """One Heketi service. Close it with `aclose`."""

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        self.url = url
        verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file is not None else True
        self._http = httpx2.AsyncClient(
            base_url=url, timeout=_ANSWER_SECONDS, trust_env=False, verify=verify
        )

    async def aclose(self) -> None:
        """Close the kept connections."""
        await self._http.aclose()

    async def hello(self) -> str:
        """Return what the service says without a token."""
        return (await self._ask("GET", "/hello", None, Credentials())).text.strip()

    async def get(self, path: str, kind: type[T], who: Credentials) -> T:
        """Read one document. Raises NotFound and what `_refused` makes."""
        answer = await self._sent("GET", path, None, who)
        try:
            return documents.decode(answer.content, kind)
        except msgspec.DecodeError as error:
            raise errors.Unavailable(
                f"GET {path} was answered with something else than Heketi's JSON",
                self.url,
                "check that the address is that of the Heketi service",
            ) from error

    async def work(self, method: str, path: str, body: object, who: Credentials) -> str:
        """Have something done and wait for its end; return the path of what was made, or "".

        Raises Lost when the end cannot be known.
        """
        answer = await self._sent(method, path, body, who)
        ticket = answer.headers.get("location", "")
        if answer.status_code != 202 or not ticket:
            return ticket
        return await self._end_of(_path(ticket), who)

    async def _end_of(self, ticket: str, who: Credentials) -> str:
        pause = _FIRST_LOOK
        try:
            async with asyncio.timeout(WORK_SECONDS):
                while True:
                    try:
                        answer = await self._sent("GET", ticket, None, who)
                    except errors.NotFound as error:
                        raise self._lost(f"it has forgotten {ticket}") from error
                    if answer.status_code == 303:
                        return _path(answer.headers.get("location", ""))
                    if answer.headers.get("x-pending") != "true":
                        return ""
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, _LAST_LOOK)
        except TimeoutError as error:
            raise self._lost(f"{ticket} is not done after {WORK_SECONDS:g} s") from error

    def _lost(self, why: str) -> Lost:
        return Lost(f"how the work ended is not known: {why}", self.url, "it is looked for again")

    async def _sent(
        self, method: str, path: str, body: object, who: Credentials
    ) -> httpx2.Response:
        for attempt in range(_BUSY_ATTEMPTS):
            answer = await self._ask(method, path, body, who)
            if answer.status_code != 429:
                break
            if attempt + 1 < _BUSY_ATTEMPTS:
                await asyncio.sleep(_BUSY_SECONDS * (attempt + 1))
        if answer.status_code >= 400:
            raise _refused(self.url, method, path, answer, who)
        return answer

    async def _ask(self, method: str, path: str, body: object, who: Credentials) -> httpx2.Response:
        headers = {}
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        if who.key:
            # The service signs the path as it sees it, whatever stands before it in the address.
            headers["Authorization"] = f"bearer {tokens.make(who.user, who.key, method, path)}"
        try:
            return await self._http.request(method, path, content=content, headers=headers)
        except httpx2.HTTPError as error:
            why = str(error) or type(error).__name__
            raise errors.Unavailable(
                f"the Heketi service does not answer ({why})",
                self.url,
                "check that it runs, and that its address is right",
            ) from error


def _path(location: str) -> str:
    """Return the path of a Location, which Heketi gives alone and proxies complete."""
    if "://" not in location:
        return location
    return "/" + location.split("://", 1)[1].partition("/")[2]


def _refused(
    url: str, method: str, path: str, answer: httpx2.Response, who: Credentials
) -> errors.BackendError:
    """Make the error of an answer: what the service says, and what to do about it."""
    status, said = answer.status_code, answer.text.strip() or f"status {answer.status_code}"
    what = f"the Heketi service said: {said[:600]}"
    if status == 401:
        return errors.Unauthorized(what, url, _remedy(said, who))
    if status == 404:
        return errors.NotFound(what, f"{url}{path}")
    if status == 409:
        return errors.Conflict(what, url)
    if status in (400, 422):
        return errors.Invalid(what, url)
    if status in (429, 503):
        return errors.Unavailable(what, url, "it is tried again")
    if "already in use" in said:
        return errors.AlreadyExists(what, url)
    if any(text in said for text in ("No space", "No online storage devices", "limit is")):
        return errors.Exhausted(what, url, "add devices (heketi-cli device add), or delete volumes")
    if "not supported" in said or "have no snapshots" in said:
        return errors.Unsupported(what, url)
    return errors.Unavailable(what, url, "the service's log says more")


def _remedy(said: str, who: Credentials) -> str:
    if not who.key:
        return "it asks for a key: name restuser and a secret (secretNamespace, secretName)"
    if "Administrator" in said:
        return f'user "{who.user}" may not do this: use admin and its key'
    if "clock" in said or "expired" in said:
        return "set the clocks of this machine and of the service"
    return f'check that the key is that of user "{who.user}" in the service\'s configuration'
