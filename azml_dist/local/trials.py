"""The trials of a sweep on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.job import Job
from azml_dist.local.group import Group
from azml_dist.local.run import LocalRun
from azml_dist.local.staging import keep_code
from azml_dist.local.state import CANCELED, COMPLETED, FAILED, NOT_STARTED, MemberState, RunState
from azml_dist.sweep import Sweep, new_seed

if TYPE_CHECKING:
    from azml_dist.local.executor import Local


class Trials(Group):
    """Started one after another or several at a time, held against each other, and the best of them found."""

    kind = "sweep"

    def __init__(self, sweep: Sweep, executor: Local, at_a_time: int) -> None:
        self._sweep = sweep.with_inputs(executor.inputs)
        self.job = self._sweep.job
        self.at_a_time = at_a_time
        self.timeout = executor.timeout or sweep.limits.timeout
        self._seed = sweep.seed if sweep.seed is not None else new_seed()
        self._values = list(self._sweep.trials(self._seed))
        # What is wrong with any trial is said before the first one starts.
        trials = [self._sweep.trial(values) for values in self._values]
        self._code = executor.plan(trials[0]).code
        self._histories: dict[int, list[float]] = {}
        self._judged: dict[int, int] = {}
        """How many values of a trial's metric the policy has seen."""
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
        }
        state.findings = list(self._differences())

    def ready(self, state: RunState) -> Iterator[tuple[MemberState, Job]]:
        for member in state.members:
            if member.status == NOT_STARTED:
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
        self._read(member, run)
        counted = [m for m in state.members if m.metric is not None and self._counts(m)]
        if counted:
            best = self._sweep.objective.best([m.metric for m in counted if m.metric is not None])
            state.details["best"] = next(m.name for m in counted if m.metric == best)

    def conclude(self, state: RunState) -> None:
        metric = self._sweep.objective.primary_metric
        state.status, state.exit_code = COMPLETED, 0
        if not any(self._counts(m) for m in state.members):
            state.status, state.exit_code = FAILED, 1
            state.error = f"none of {len(state.members)} trials was completed"
            state.hint = f"`azml-dist logs {state.members[0].name}` shows the first"
        elif state.details["best"] is None:
            state.status, state.exit_code = FAILED, 1
            state.error = f"no trial logged the primary metric `{metric}`"
            logged = sorted(_logged(state))
            state.hint = f"logged were {', '.join(logged)}" if logged else f'`mlflow.log_metric("{metric}", value)`'
        elif missing := [m.label for m in state.members if m.status == COMPLETED and m.metric is None]:
            state.findings.append(f"{', '.join(missing)} did not log the primary metric `{metric}`")

    def _counts(self, member: MemberState) -> bool:
        """Whether a trial may be the best: it was completed, or a policy ended it."""
        return member.status == COMPLETED or (member.status == CANCELED and member.name in self._ended_early)

    def _read(self, member: MemberState, run: LocalRun) -> int:
        """Note what a trial has logged so far; its number."""
        number = int(member.label.split()[1])
        objective = self._sweep.objective
        values = run.metric_histories().get(objective.primary_metric)
        if values:
            member.metric = objective.best(values)
            sign = -1 if objective.goal == "minimize" else 1
            self._histories[number] = [sign * value for value in values]
        return number

    def _differences(self) -> Iterator[str]:
        """What goes differently on Azure ML."""
        sweep = self._sweep
        if sweep.sampling_algorithm.type == "bayesian":
            yield "the values were drawn at random: bayesian sampling is Azure ML's own"
        if getattr(sweep.sampling_algorithm, "rule", None) == "sobol":
            yield "the values were drawn at random: the Sobol sequence is Azure ML's own"
        if sweep.early_termination and self.at_a_time == 1:
            yield "trials ran one after another: the policy held each against those before it, not against all"


def _logged(state: RunState) -> Iterator[str]:
    root = Path(state.folder).parent
    runs = (LocalRun.find(member.name, root) for member in state.members)
    return iter({name for run in runs if run for name in run.metrics()})
