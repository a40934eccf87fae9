"""Runs the trials of a sweep on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from azml_dist.local.groups.group import Group, Starter, inputs_of
from azml_dist.local.groups.run import member_run
from azml_dist.local.run import LocalRun
from azml_dist.local.staging import keep_code
from azml_dist.local.state import MemberState, RunState
from azml_dist.model.job import JobFields
from azml_dist.model.sweep import new_seed
from azml_dist.status import RunStatus
from azml_dist.sweep import Sweep


class Trials(Group):
    """Trials start one after another or several at a time; the policy compares them, and the best one is recorded."""

    kind = "sweep"

    def __init__(self, sweep: Sweep, executor: Starter, at_a_time: int) -> None:
        self._sweep = sweep.with_inputs(executor.inputs)
        self.job = self._sweep.job
        self.at_a_time = at_a_time
        self.timeout = executor.timeout or sweep.limits.timeout
        self._seed = sweep.seed if sweep.seed is not None else new_seed()
        self._values = list(self._sweep.trials(self._seed))
        # Report what is wrong with any trial before the first one starts.
        trials = [self._sweep.trial(values) for values in self._values]
        self._code = executor.plan(trials[0]).code
        self._histories: dict[int, list[float]] = {}
        self._judged: dict[int, int] = {}
        """How many metric values of each trial the policy has seen."""
        self._ended_early: set[str] = set()

    def prepare(self, folder: Path, state: RunState) -> None:
        self._sweep = self._sweep.with_(job=keep_code(self._sweep.job, self._code, folder / "code"))
        state.members = [
            MemberState(f"trial {i}", f"{state.name}_{i}", values=dict(values)) for i, values in enumerate(self._values)
        ]
        objective = self._sweep.objective
        sampling = self._sweep.sampling_algorithm.type
        state.details = {
            "primary_metric": objective.primary_metric,
            "goal": objective.goal,
            "sampling": sampling,
            "seed": None if sampling == "grid" else self._seed,
            "best": None,
            "inputs": inputs_of(self._sweep.job, self._sweep.search_space),
        }
        state.findings = list(self._differences())

    def ready(self, state: RunState) -> Iterator[tuple[MemberState, JobFields]]:
        for member in state.members:
            if member.status == RunStatus.NOT_STARTED:
                yield member, self._sweep.trial(member.values).with_(name=member.name)

    def look(self, member: MemberState, run: LocalRun) -> str | None:
        number = self._read(member, run)
        policy = self._sweep.early_termination
        if policy is None or number not in self._histories:
            return None
        seen = self._judged.get(number, 0)
        self._judged[number] = len(self._histories[number])
        at = policy.ends(number, self._histories, seen)
        if at is None:
            return None
        self._ended_early.add(member.name)
        return f"ended by the {policy.type} policy at interval {at}"

    def ended(self, state: RunState, member: MemberState, run: LocalRun) -> None:
        """Name the best trial so far; of equal ones the first (inferred: nothing documented says which)."""
        self._read(member, run)
        counted = [m for m in state.members if m.metric is not None and self._counts(m)]
        if counted:
            values = [m.metric for m in counted if m.metric is not None]
            best = values.index(self._sweep.objective.best(values))  # finds a NaN, too: it is the same object
            state.details["best"] = counted[best].name

    def conclude(self, state: RunState) -> None:
        metric = self._sweep.objective.primary_metric
        state.status, state.exit_code = RunStatus.COMPLETED, 0
        if not any(self._counts(m) for m in state.members):
            state.status, state.exit_code = RunStatus.FAILED, 1
            state.error = f"none of {len(state.members)} trials completed"
            state.hint = f"`azml-dist logs {state.members[0].name}` shows the first"
        elif state.details["best"] is None:
            state.status, state.exit_code = RunStatus.FAILED, 1
            state.error = f"no trial logged the primary metric `{metric}`"
            logged = sorted(_logged(state))
            names = ", ".join(f"`{one}`" for one in logged)
            said = f"they logged {names}: set `objective.primary_metric` to what they log"
            state.hint = said if logged else f'`mlflow.log_metric("{metric}", value)`'
        elif missing := [m.label for m in state.members if m.status == RunStatus.COMPLETED and m.metric is None]:
            state.findings.append(f"{', '.join(missing)} did not log the primary metric `{metric}`")

    def _counts(self, member: MemberState) -> bool:
        """Whether a trial may be the best: it completed, or a policy ended it."""
        ended_early = member.status == RunStatus.CANCELED and member.name in self._ended_early
        return member.status == RunStatus.COMPLETED or ended_early

    def _read(self, member: MemberState, run: LocalRun) -> int:
        """Record what a trial has logged so far; returns its number."""
        number = int(member.label.split()[1])
        objective = self._sweep.objective
        values = run.metric_histories().get(objective.primary_metric)
        if values:
            member.metric = objective.best(values)
            sign = -1 if objective.goal == "minimize" else 1
            self._histories[number] = [sign * value for value in values]
        return number

    def _differences(self) -> Iterator[str]:
        """Findings about what Azure ML does differently."""
        sweep = self._sweep
        if sweep.sampling_algorithm.type == "bayesian":
            yield "the values were drawn at random: only Azure ML has Bayesian sampling"
        if getattr(sweep.sampling_algorithm, "rule", None) == "sobol":
            yield "the values were drawn at random: only Azure ML has the Sobol sequence"
        if sweep.early_termination and self.at_a_time == 1:
            yield "trials ran one after another, so the policy compared each only with those before it"


def _logged(state: RunState) -> Iterator[str]:
    root = Path(state.folder).parent
    runs = (member_run(root, member.name) for member in state.members)
    return iter({name for run in runs if run for name in run.metrics()})
