"""What a pod's containers are doing, in the words of a kubelet.

A `State` is one container as its status shows it; a `Progress` is the pod: its phase, its
containers, and when to look again. Nothing here looks at the machine.

The invariant: a status names what ran: `imageID` says that the root is this machine's and
that no image was pulled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.controllers.nodeagent.containerspecs import Container, Spec
from holdfast.controllers.nodeagent.probing import Verdict
from holdfast.kit import clock
from holdfast.node.containers import Attempt, Ended

# Shown where Kubernetes shows which image was pulled.
ROOT = "holdfast://root-of-this-machine"
ASLEEP = "holdfast://asleep"
COMMANDS_RUN = "holdfast.dev/CommandsRun"

Fields = dict[str, Any]
Words = Callable[[Container, Attempt], str]


@dataclass(frozen=True, slots=True)
class State:
    """One container; `wait` in seconds until it is to be looked at again."""

    container: Container
    state: Fields
    last: Fields = dataclasses.field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0
    id: str = ""
    image_id: str = ""
    sleeps: str = ""
    wait: float | None = None

    @property
    def exit_code(self) -> int | None:
        """The code it ended with; None unless it has ended."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def entry(self) -> Fields:
        """The entry of containerStatuses."""
        built: Fields = {
            "name": self.container.name,
            "state": self.state,
            "lastState": self.last,
            "ready": self.ready,
            "restartCount": self.restarts,
            "image": self.container.image,
            "imageID": self.image_id,
            "started": self.started,
        }
        if self.id:
            built["containerID"] = self.id
        return built


@dataclass(frozen=True, slots=True)
class Progress:
    """A pod's containers and what they make of it."""

    phase: str
    init: Sequence[State]
    main: Sequence[State]
    initialized: bool
    wait: float | None

    @property
    def sleeps(self) -> Mapping[str, str]:
        """Why containers sleep, by name."""
        return {each.container.name: each.sleeps for each in self.main if each.sleeps}


def waiting(container: Container, reason: str, message: str = "") -> State:
    """A container that was not started yet."""
    said = {"reason": reason, **({"message": message} if message else {})}
    return State(container, {"waiting": said})


def of(
    container: Container,
    attempt: Attempt,
    before: Attempt | None,
    verdict: Verdict,
    words: Words,
) -> State:
    """A container that was started at least once."""
    last = {}
    if before is not None and before.ended is not None:
        last = {"terminated": _terminated(container, before, before.ended, words)}
    sleeps = attempt.about.sleeps
    built = State(
        container,
        {"running": {"startedAt": attempt.about.started}},
        last,
        ready=verdict.ready,
        started=verdict.started,
        restarts=attempt.number,
        id=_id(attempt),
        image_id=ASLEEP if sleeps else ROOT,
        sleeps=sleeps,
    )
    if attempt.ended is None:
        return built
    ended = {"terminated": _terminated(container, attempt, attempt.ended, words)}
    return dataclasses.replace(built, state=ended, ready=False, started=False, sleeps="")


def backing_off(seen: State, pod: Mapping[str, Any], wait: float, whole: float) -> State:
    """A container that has ended and is not to start again yet."""
    text = (
        f"back-off {_duration(whole)} restarting failed "
        f"container={seen.container.name} pod={full(pod)}"
    )
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
    return dataclasses.replace(seen, state=state, last=seen.state, wait=wait)


def failed_to_begin(seen: State, reason: str, message: str, wait: float) -> State:
    """A container that could not be made."""
    state = {"waiting": {"reason": reason, "message": message}}
    last = seen.state if "terminated" in seen.state else seen.last
    return dataclasses.replace(
        seen, state=state, last=last, ready=False, started=False, sleeps="", wait=wait
    )


def full(pod: Mapping[str, Any]) -> str:
    """A pod as kubelets name it in messages."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta.get('namespace', '')}({meta['uid']})"


def lets_next_begin(init: State, container: Container) -> bool:
    """Whether the container after this init container may start."""
    if container.restart_policy == "Always":
        return init.started
    return init.exit_code == 0


def progress(spec: Spec, init: Sequence[State], main: Sequence[State]) -> Progress:
    """The pod that these containers make."""
    waits = [each.wait for each in (*init, *main) if each.wait is not None]
    initialized = len(init) == len(spec.init_containers) and all(
        lets_next_begin(each, each.container) for each in init
    )
    return Progress(
        _phase(spec, init, main, initialized),
        [_with_init_readiness(each) for each in init],
        main,
        initialized,
        min(waits, default=None),
    )


def _with_init_readiness(state: State) -> State:
    if state.container.restart_policy == "Always":
        return state
    return dataclasses.replace(state, ready=state.exit_code == 0, started=False)


def _phase(spec: Spec, init: Sequence[State], main: Sequence[State], initialized: bool) -> str:
    if not initialized:
        never = spec.restart_policy == "Never"
        failed = any(
            each.exit_code not in (None, 0) and each.container.restart_policy != "Always"
            for each in init
        )
        return "Failed" if never and failed else "Pending"
    if any("running" in each.state for each in main):
        return "Running"
    codes = [each.exit_code for each in main]
    ended = [code for code in codes if code is not None]
    if len(ended) == len(codes):
        if spec.restart_policy == "Always":
            return "Running"
        if not any(ended):
            return "Succeeded"
        return "Failed" if spec.restart_policy == "Never" else "Running"
    # What waits for another start has run before; what never ran is still being made.
    return "Running" if all(each.last or each.exit_code is not None for each in main) else "Pending"


def _terminated(container: Container, attempt: Attempt, ended: Ended, words: Words) -> Fields:
    built: Fields = {
        "exitCode": ended.code,
        "reason": _reason(ended),
        "startedAt": attempt.about.started,
        "finishedAt": clock.rfc3339(ended.at),
        "containerID": _id(attempt),
    }
    message = words(container, attempt)
    if message:
        built["message"] = message
    elif not ended.known:
        built["message"] = "The container could not be located when the pod was looked at"
    return built


def _reason(ended: Ended) -> str:
    if not ended.began:
        return "StartError"
    if not ended.known:
        return "ContainerStatusUnknown"
    return "Completed" if ended.code == 0 else "Error"


def _id(attempt: Attempt) -> str:
    return f"holdfast://{attempt.owner}/{attempt.name}/{attempt.number}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
