"""Restart policy, back-off, probe counting and phases: pure decisions of the node agent."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from holdfast.controllers.nodeagent import containerspecs, environment, probing, restarts, states
from holdfast.controllers.nodeagent.containerspecs import Container, ExecAction, Probe, Spec
from holdfast.controllers.nodeagent.questions import Result

NOW = datetime.datetime(2026, 11, 21, 8, 0, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_policy_decides_about_another_start(policy: str, code: int, again: bool) -> None:
    assert restarts.again(policy, code) is again


def test_the_delay_doubles_up_to_five_minutes() -> None:
    assert [restarts.delay(n) for n in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert restarts.delay(10_000) == 300


def test_the_delay_counts_from_the_end_of_the_last_attempt() -> None:
    waits = restarts.Restarts()
    ended = NOW - 4 * SECOND
    assert waits.wait(("u", "c"), 1, ended - SECOND, ended, NOW) == (6.0, 10.0)
    assert waits.wait(("u", "c"), 1, ended, NOW - 11 * SECOND, NOW) == (0.0, 10.0)


def test_a_container_that_ran_for_long_starts_from_the_beginning() -> None:
    waits = restarts.Restarts()
    assert waits.wait(("u", "c"), 9, NOW - 601 * SECOND, NOW, NOW) == (0.0, 0.0)
    assert waits.wait(("u", "c"), 10, NOW, NOW, NOW) == (10.0, 10.0)
    waits.forget("u")
    assert waits.wait(("u", "c"), 10, NOW, NOW, NOW) == (300.0, 300.0)


def test_a_probe_changes_its_answer_only_at_its_thresholds() -> None:
    tally = probing.Tally(Probe(success_threshold=2, failure_threshold=3), False)
    assert [tally.add(x) for x in (True, False, True, True)] == [False, False, False, True]
    assert tally.answer is True
    assert [tally.add(False) for _ in range(3)] == [False, False, True]
    assert tally.answer is False


def watch(results: list[int], **probes: Probe) -> tuple[probing.Watch, list[str]]:
    """A watch whose commands end with these codes, one after the other; then it is over."""
    told: list[str] = []
    done = asyncio.Event()

    async def ask(probe: Probe) -> Result:
        code = results.pop(0)
        if not results:
            asyncio.get_running_loop().call_soon(done.set)
        return Result("failure" if code else "success", "look said so")

    def kill(kind: str) -> None:
        told.append(f"kill by {kind}")
        done.set()

    def tell(kind: str, result: Result) -> None:
        told.append(f"{kind} failed: {result.output}")

    made = probing.Watch(probes, done, ask, tell, kill, lambda: told.append("changed"))
    return made, told


def exec_probe(failures: int = 3) -> Probe:
    look = ExecAction(command=["look"])
    return Probe(exec=look, period_seconds=0, failure_threshold=failures)


async def test_a_container_is_not_ready_before_its_probe_says_so() -> None:
    made, told = watch([1, 0], Readiness=exec_probe())
    assert (made.verdict.started, made.verdict.ready) == (True, False)
    await asyncio.wait_for(made.probe(), 10)
    assert told == ["Readiness failed: look said so", "changed"] and made.verdict.ready


async def test_the_startup_probe_goes_first_and_a_dead_container_is_killed() -> None:
    made, told = watch([0, 1, 0], Startup=exec_probe(), Liveness=exec_probe(failures=1))
    assert (made.verdict.started, made.verdict.ready) == (False, False)
    await asyncio.wait_for(made.probe(), 10)
    assert told == ["changed", "Liveness failed: look said so", "kill by Liveness"]
    assert made.verdict.started and made.verdict.ready


async def test_what_could_not_be_asked_is_told_and_does_not_count() -> None:
    told: list[str] = []
    done = asyncio.Event()
    asked = 0

    async def ask(probe: Probe) -> Result:
        nonlocal asked
        asked += 1
        if asked == 4:
            asyncio.get_running_loop().call_soon(done.set)
            return Result("success")
        return Result("unknown", "port web not found")

    def tell(kind: str, result: Result) -> None:
        told.append(f"{kind} {result.answer}")

    probes = {"Liveness": exec_probe(failures=1)}
    made = probing.Watch(probes, done, ask, tell, told.append, lambda: None)
    await asyncio.wait_for(made.probe(), 10)
    assert told == ["Liveness unknown"], "told once in three tries, and nothing is killed"


async def test_only_readiness_is_asked_while_a_container_is_being_ended() -> None:
    made, told = watch([1, 1], Readiness=exec_probe(), Liveness=exec_probe(failures=1))
    made.stopping = lambda: True
    await asyncio.wait_for(made.probe(), 10)
    assert told == ["Readiness failed: look said so"] * 2


def test_probes_of_sleepers_and_those_that_ask_nothing_are_not_carried_out() -> None:
    container = Container(liveness_probe=exec_probe(), readiness_probe=Probe())
    assert list(probing.of(container, sleeps=False)) == ["Liveness"]
    assert probing.of(container, sleeps=True) == {}


def state(**state: object) -> states.State:
    return states.State(Container(name="c"), dict(state))


RUNNING = state(running={})
GOOD, BAD = state(terminated={"exitCode": 0}), state(terminated={"exitCode": 2})
NEW = state(waiting={"reason": "ContainerCreating"})


@pytest.mark.parametrize(
    ("policy", "main", "phase"),
    [
        ("Always", [NEW], "Pending"),
        ("Always", [RUNNING, NEW], "Running"),
        ("Always", [GOOD, BAD], "Running"),
        ("Never", [GOOD, RUNNING], "Running"),
        ("Never", [GOOD, GOOD], "Succeeded"),
        ("Never", [GOOD, BAD], "Failed"),
        ("OnFailure", [GOOD, BAD], "Running"),
        ("OnFailure", [GOOD, GOOD], "Succeeded"),
    ],
)
def test_the_phase_follows_from_the_containers(
    policy: str, main: list[states.State], phase: str
) -> None:
    spec = Spec(restart_policy=policy, containers=[Container(name="c")] * len(main))
    assert states.progress(spec, [], main).phase == phase


@pytest.mark.parametrize(
    ("policy", "init", "phase"),
    [("Never", BAD, "Failed"), ("Always", BAD, "Pending"), ("Never", RUNNING, "Pending")],
)
def test_init_containers_hold_the_phase_back(policy: str, init: states.State, phase: str) -> None:
    spec = Spec(
        restart_policy=policy,
        containers=[Container(name="c")],
        init_containers=[Container(name="i")],
    )
    progress = states.progress(spec, [init], [NEW])
    assert (progress.phase, progress.initialized) == (phase, False)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$$(A)", "$(A)"),
        ("$(NO) $A ${A} 5$", "$(NO) $A ${A} 5$"),
        ("$$$(A)", "$1"),
    ],
)
def test_references_are_expanded_as_in_kubernetes(text: str, expanded: str) -> None:
    assert environment.expand(text, {"A": "1", "B": "2"}) == expanded


def test_a_container_is_found_among_all() -> None:
    pod = {"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "b", "tty": True}]}}
    found = containerspecs.of(pod).container("b")
    assert found is not None and found.tty
    assert containerspecs.of(pod).container("c") is None
