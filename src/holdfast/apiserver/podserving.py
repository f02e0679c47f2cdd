"""Serving what is on a node through the API: `log`, `exec`, `attach`, `portforward` of a pod.

A log is a plain answer that may take long. The others are connections that both sides talk on:
WebSockets, as kubectl comes with since 1.31, or SPDY, as it came with before. The same checks
guard both: who asks, which pod, which container.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from holdfast.api import errors, kinds
from holdfast.apiserver import (
    channels,
    forwarding,
    podstreams,
    remotecommand,
    requests,
    upgrading,
)
from holdfast.apiserver.answers import send_text
from holdfast.apiserver.auth import Authenticator
from holdfast.apiserver.authorization import Authorizer
from holdfast.apiserver.requests import Receive, Request, Scope, Send, Target
from holdfast.apiserver.resources import Resources
from holdfast.apiserver.spdy import links

log = logging.getLogger("holdfast.apiserver")

FORWARD = "portforward"
UPGRADED = ("exec", "attach", FORWARD)


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

    async def upgrade(self, target: Target, request: Request) -> Upgrade:
        """Begin what a request wants to be upgraded to; raises `StatusError` before anything."""
        query = channels.Query(request.scope)
        if target.subresource == FORWARD:
            runner, pod = self._forwarded(target)
            if upgrading.asks_for_spdy(request):
                protocol = upgrading.negotiate(request, (forwarding.PROTOCOL,))
                return Upgrade(request, protocol, functools.partial(_forward, pod, runner), None)
        else:
            self._check(target, query)
            if upgrading.asks_for_spdy(request):
                protocol = upgrading.negotiate(request, remotecommand.PROTOCOLS)
                session = await self._begin(target, query)
                start = functools.partial(_command, session, query, protocol)
                return Upgrade(request, protocol, start, session)
        raise errors.BadRequest(
            "you must request connection upgrade: come with a WebSocket or with SPDY/3.1"
        )

    async def run(self, upgrade: Upgrade) -> None:
        """Serve an upgraded connection to its end."""
        with self._registered():
            await upgrade.run()

    async def converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket connection from its handshake to its end."""
        if (await receive())["type"] != "websocket.connect":
            return
        with self._registered():
            try:
                target = self._asked(scope, receive)
                if target.subresource == FORWARD:
                    await self._forward(target, scope, receive, send)
                    return
                query = channels.Query(scope)
                protocol = channels.protocol_of(scope)
                self._check(target, query)
                session = await self._begin(target, query)
            except errors.StatusError as error:
                await channels.refuse(scope, send, error)
                return
            if await _accepted(send, protocol):
                await channels.Conversation(session, query, receive, send).run()
            else:
                await session.close()

    async def _forward(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        runner, pod = self._forwarded(target)
        protocol = channels.protocol_of(scope, (forwarding.TUNNELLED,))
        if await _accepted(send, protocol):
            link = links.WebSocketLink(receive, send)
            await forwarding.Forwarding(pod, runner, link).run()

    def _asked(self, scope: Scope, receive: Receive) -> Target:
        # A handshake is a GET, although its scope does not say so.
        request = Request({**scope, "method": "GET"}, receive)
        user = self._authenticator.user(request.header(b"authorization"))
        self._authorizer.check(user, request)
        target = requests.target_of(scope["path"])
        if target is None or target.kind is not kinds.POD or target.subresource not in UPGRADED:
            raise errors.BadRequest("there is nothing to talk to over a WebSocket at this path")
        return target

    def _check(self, target: Target, query: channels.Query) -> None:
        """Raise `StatusError` for an exec or attach that could not be served."""
        query.check(command=target.subresource == "exec")
        pod = self._pod(target)
        container = podstreams.container_of(pod, query.container)
        runner = podstreams.runner_of(self._runners, pod)
        runner.check(pod, container, attach=target.subresource == "attach")

    async def _begin(self, target: Target, query: channels.Query) -> podstreams.Session:
        pod = self._pod(target)
        container = podstreams.container_of(pod, query.container)
        runner = podstreams.runner_of(self._runners, pod)
        if target.subresource == "attach":
            return await runner.attach(pod, container)
        return await runner.execute(
            pod, container, query.command, stdin=query.stdin, terminal=query.terminal
        )

    def _forwarded(self, target: Target) -> tuple[podstreams.PodRunner, podstreams.Pod]:
        pod = self._pod(target)
        runner = podstreams.runner_of(self._runners, pod)
        runner.check_forward(pod)
        return runner, pod

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


class Upgrade:
    """What a connection becomes once it is upgraded; runs once."""

    def __init__(
        self,
        request: Request,
        protocol: str,
        start: Callable[[links.Link], Awaitable[None]],
        session: podstreams.Session | None,
    ) -> None:
        self._request = request
        self._protocol = protocol
        self._start = start
        self._session = session

    async def run(self) -> None:
        """Answer 101 and serve what follows; a client that is gone by then ends its program."""
        try:
            link = await upgrading.spdy_link(self._request, self._protocol)
        except BaseException as error:
            if self._session is not None:
                await self._session.close()
            if isinstance(error, OSError):
                log.debug("client left before its upgrade", extra={"error": str(error)})
                return
            raise
        await self._start(link)


async def _command(
    session: podstreams.Session, query: channels.Query, protocol: str, link: links.Link
) -> None:
    await remotecommand.RemoteCommand(session, query, protocol, link).run()


async def _forward(pod: podstreams.Pod, runner: podstreams.PodRunner, link: links.Link) -> None:
    await forwarding.Forwarding(pod, runner, link).run()


async def _accepted(send: Send, protocol: str) -> bool:
    """Accept a WebSocket; whether its client is still there."""
    try:
        await send({"type": "websocket.accept", "subprotocol": protocol})
    except OSError:
        return False
    return True
