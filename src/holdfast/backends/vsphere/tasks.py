"""Waits for vCenter's tasks: one thread for each session, however many tasks there are.

All tasks that are waited for are read in one call. A young task is looked at after
milliseconds, an old one each second, so that a short task costs little time and a long one
few calls. (A property collector's blocking wait was measured too: it doubles the time and
the calls of short tasks, and saves nothing once a thread has to be told of new tasks.)

A task may be waited for by several, also by one that comes again after it gave up waiting, or
after a restart, knowing the task's id alone: each has a future of its own, and ends for itself.

Invariant: a future ends with the task's result, with the task's fault, or because vCenter
cannot be asked or has forgotten the task; in the last two cases the task may have done its work.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import faults
from holdfast.backends.vsphere.sdk import vim, vmodl
from holdfast.backends.vsphere.session import Session

FIRST_LOOK = 0.001
LAST_LOOK = 1.0
# For so long tasks are waited for although vCenter does not answer.
PATIENCE = 60.0
_PATHS = ["info.state", "info.error", "info.result"]


class Forgotten(errors.Unavailable):
    """vCenter no longer knows the task; what it did has to be looked at."""


@dataclass(slots=True)
class _Pending:
    task: Any
    futures: list[Future[Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)


class TaskWaiter:
    """The tasks of one session. Its thread runs only while there is something to wait for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed = threading.Condition()
        self._pending: dict[str, _Pending] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._silent_since: float | None = None

    def add(self, task: Any) -> Future[Any]:
        """Return what becomes the task's result, for this caller alone.

        One that stops waiting cancels its future; others that wait for the task do not notice.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise errors.Unavailable("Holdfast is stopping", self._session.where)
            self._pending.setdefault(task._moId, _Pending(task)).futures.append(future)
            if self._thread is None:
                name = f"vsphere-tasks-{self._session.center.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Give up waiting; vCenter goes on with its tasks."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed or not self._pending:
                    self._thread = None
                    left = list(self._pending.values())
                    self._pending.clear()
                    break
                watched = list(self._pending.values())
            # Tasks that are started together are seen together.
            time.sleep(FIRST_LOOK)
            self._look(watched)
            with self._changed:
                if self._pending and not self._closed:
                    self._changed.wait(self._delay())
        stopping = errors.Unavailable("Holdfast is stopping", self._session.where)
        for each in left:
            _settle(each.futures, stopping)

    def _delay(self) -> float:
        youngest = max(each.since for each in self._pending.values())
        return min(LAST_LOOK, (time.monotonic() - youngest) / 4)

    def _look(self, watched: list[_Pending]) -> None:
        try:
            states = self._read(watched)
            self._silent_since = None
        except Exception as error:
            self._failed(watched, error)
            return
        for each in watched:
            state = states.get(each.task._moId, {})
            if state.get("info.state") == "success":
                self._done(each, state.get("info.result"))
            elif not state and time.monotonic() - each.since > PATIENCE:
                # Not this user's to see, as after a change of user: it is never seen to end.
                self._done(each, _forgotten(self._session.where))
            elif state.get("info.state") == "error":
                fault = state.get("info.error") or RuntimeError("failed without a reason")
                self._done(each, faults.translate(fault, self._session.where), fault)

    def _read(self, watched: list[_Pending]) -> dict[str, dict[str, Any]]:
        collector = vmodl.query.PropertyCollector
        spec = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=each.task) for each in watched],
            propSet=[collector.PropertySpec(type=vim.Task, pathSet=_PATHS)],
        )
        reader = self._session.content.propertyCollector
        found = reader.RetrievePropertiesEx([spec], collector.RetrieveOptions())
        objects = list(found.objects) if found else []
        while found and found.token:
            found = reader.ContinueRetrievePropertiesEx(found.token)
            objects += found.objects
        return {each.obj._moId: {one.name: one.val for one in each.propSet} for each in objects}

    def _failed(self, watched: list[_Pending], error: Exception) -> None:
        if isinstance(error, vmodl.fault.ManagedObjectNotFound):
            gone = getattr(error.obj, "_moId", None)
            for each in watched:
                if gone is None or each.task._moId == gone:
                    self._done(each, _forgotten(self._session.where), error)
            return
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > PATIENCE:
            for each in watched:
                self._done(each, faults.translate(error, self._session.where), error)

    def _done(self, each: _Pending, result: Any, cause: BaseException | None = None) -> None:
        with self._changed:
            # From here on nobody is added to it.
            self._pending.pop(each.task._moId, None)
        if isinstance(result, BaseException):
            result.__cause__ = cause
        _settle(each.futures, result)


def _forgotten(where: str) -> errors.BackendError:
    return Forgotten(
        "vCenter no longer knows the task", where, "what it did is looked at and made good"
    )


def _settle(futures: list[Future[Any]], result: Any) -> None:
    for future in futures:
        # Whoever waited may have been cancelled meanwhile.
        if not future.set_running_or_notify_cancel():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
