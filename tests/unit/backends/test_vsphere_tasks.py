"""Waiting for tasks of which vCenter says nothing."""

from __future__ import annotations

import pytest

from holdfast.backends.vsphere import tasks
from holdfast.backends.vsphere.configuration import Center, Credentials
from holdfast.backends.vsphere.sdk import vim
from holdfast.backends.vsphere.session import Session
from holdfast.backends.vsphere.tasks import Forgotten, TaskWaiter


def test_a_task_that_one_may_not_see_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after another user was configured: vCenter answers, and says nothing of the task."""
    session = Session(Center("vc.example"), lambda: Credentials("u", "p"))
    waiter = TaskWaiter(session)
    monkeypatch.setattr(waiter, "_read", lambda watched: {})
    monkeypatch.setattr(tasks, "PATIENCE", 0.05)
    future = waiter.add(vim.Task("task-1"))
    try:
        with pytest.raises(Forgotten):
            future.result(5)
    finally:
        waiter.close()
