"""Serving what is on a node through the API: `log`, `exec` and `attach` of a pod.

A log is a plain answer that may take long. The other two are WebSocket connections, the
way kubectl has talked since 1.31; its older SPDY is refused with a text that says so. The
same checks guard both: who asks, which pod, which container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from holdfast.api import errors, kinds
from holdfast.apiserver import channels, podstreams, requests
from holdfast.apiserver.answers import send_text
from holdfast.apiserver.auth import Authenticator
from holdfast.apiserver.authorization import Authorizer
from holdfast.apiserver.requests import Receive, Request, Scope, Send, Target
from holdfast.apiserver.resources import Resources

log = logging.getLogger("holdfast.apiserver")

UPGRADED = ("exec", "attach")


class PodServing:
    """The subresources of pods that reach through to a node."""

    def __init__(
        self,
        resources: Resources,
        authenticator: Authenticator,
        authorizer: Authorizer,
        runners: podstreams.Runners,
    ) -> None:
        self._resources = resources
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._runners = runners
        self._open: set[asyncio.Task[Any]] = set()
        self._closing = False

    def close(self) -> None:
        """End what is open, and what comes from now on, so that the server can stop."""
        self._closing = True
        for task in list(self._open):
            task.cancel()

    def log(self, target: Target, request: Request) -> AsyncIterator[bytes]:
        """The log a request asks for; raises `StatusError` before anything is sent."""
        return podstreams.log_of(self._runners, self._pod(target), request)

    async def send(self, chunks: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
        """Send a log until it ends, the client leaves or the server stops."""
        with self._registered():
            try:
                await send_text(send, receive, chunks)
            except OSError as error:
                log.debug("log not sent to its end", extra={"error": str(error)})

    def check(self, target: Target, scope: Scope) -> None:
        """Raise `StatusError` for an exec or attach that could not be served."""
        query = channels.Query(scope)
        query.check(command=target.subresource == "exec")
        pod = self._pod(target)
        container = podstreams.container_of(pod, query.container)
        runner = podstreams.runner_of(self._runners, pod)
        runner.check(pod, container, attach=target.subresource == "attach")

    async def converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket connection from its handshake to its end."""
        if (await receive())["type"] != "websocket.connect":
            return
        with self._registered():
            query = channels.Query(scope)
            try:
                protocol = channels.protocol_of(scope)
                session = await self._session(scope, receive, query)
            except errors.StatusError as error:
                await channels.refuse(scope, send, error)
                return
            try:
                await send({"type": "websocket.accept", "subprotocol": protocol})
            except OSError:
                await session.close()
                return
            await channels.Conversation(session, query, receive, send).run()

    async def _session(
        self, scope: Scope, receive: Receive, query: channels.Query
    ) -> podstreams.Session:
        # A handshake is a GET, although its scope does not say so.
        request = Request({**scope, "method": "GET"}, receive)
        user = self._authenticator.user(request.header(b"authorization"))
        self._authorizer.check(user, request)
        target = requests.target_of(scope["path"])
        if target is None or target.kind is not kinds.POD or target.subresource not in UPGRADED:
            raise errors.BadRequest("there is nothing to talk to over a WebSocket at this path")
        self.check(target, scope)
        pod = self._pod(target)
        container = podstreams.container_of(pod, query.container)
        runner = podstreams.runner_of(self._runners, pod)
        if target.subresource == "attach":
            return await runner.attach(pod, container)
        return await runner.execute(
            pod, container, query.command, stdin=query.stdin, terminal=query.terminal
        )

    def _pod(self, target: Target) -> podstreams.Pod:
        if target.name is None:
            raise errors.NotFound.resource()
        return self._resources.get(target.kind, target.name, target.namespace).obj

    @contextlib.contextmanager
    def _registered(self) -> Iterator[None]:
        """Let `close` end what the block does; ended so, the block just stops."""
        task = asyncio.current_task()
        assert task is not None
        if self._closing:
            task.cancel()
        self._open.add(task)
        try:
            yield
        except asyncio.CancelledError:
            task.uncancel()
        finally:
            self._open.discard(task)


def not_upgraded(request: Request) -> errors.StatusError:
    """What a client is told that does not come with a WebSocket."""
    if request.header(b"upgrade").lower().startswith("spdy"):
        return errors.BadRequest(
            "SPDY is not spoken here: use kubectl 1.31 or newer (or 1.29 and 1.30 with "
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true), which comes with a WebSocket"
        )
    return errors.BadRequest("you must request connection upgrade: come with a WebSocket")
