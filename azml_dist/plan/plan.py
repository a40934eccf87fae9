"""What a job means: one world, the context of every process in it, its command, files and request. Pure.

This is the only place that computes a world. What is known only when a run starts, the `Place`, the executors fill in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from azml_dist.errors import Finding, JobError
from azml_dist.model.given import open_problems
from azml_dist.model.job import JobFields
from azml_dist.notation.expressions import INPUT_OR_OUTPUT
from azml_dist.plan.findings import findings_of
from azml_dist.plan.probed import probed_findings, service_here
from azml_dist.plan.processes import Processes
from azml_dist.plan.request import request_body
from azml_dist.plan.rules import file_problems, unfilled
from azml_dist.plan.snapshot import NO_CODE, Snapshot, take_snapshot
from azml_dist.plan.variables import unexpanded_values, unrendered_values, unset_variables
from azml_dist.plan.world import NOWHERE, SERVICE, Place, Service, World
from azml_dist.show import Block, Facts, Folded, Page, Shown, Table, abbreviated, told
from azml_dist.words import plural, size_text

STARTUP = {"PYTHONPATH": "<start-up module of the watch>"}
"""What a local run sets beside the environment of each process. It is gone from `os.environ` and `sys.path` before the
user's code runs: the module arranges how a process answers that hangs. `run --no-watch` leaves it out."""


@dataclass(frozen=True)
class LaunchPlan(Shown):
    """The meaning of a job: `print` it for a table; `processes[3].env`, `command` and `request` for the parts."""

    job: JobFields
    code: Snapshot
    place: Place = NOWHERE
    service: Service = SERVICE
    reads_script: bool = True
    """Whether the findings are also about what the training script says."""

    @cached_property
    def processes(self) -> Processes:
        """Every process of the world, by rank; each is computed when you access it."""
        return Processes(self.job, self.place, self.service)

    @property
    def world(self) -> World:
        """The number of nodes, of processes per node, and of processes in all."""
        return self.processes.world

    @cached_property
    def command(self) -> str:
        """The command that the shell of each process gets, with its expressions replaced."""
        command = self.job.without_optional_parts(self.job.shell_command)
        return INPUT_OR_OUTPUT.sub(lambda m: self.place.value_of(self.job, m[1], m[2]), command)

    @cached_property
    def request(self) -> dict[str, Any]:
        """The request body that azure-ai-ml sends; ids that only the service knows are None."""
        return request_body(self.job)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is allowed but probably a mistake, to be fixed before the job waits in a queue."""
        known = self.processes[0].env
        return (
            *findings_of(self.job, self.code),
            *unset_variables(self.job, known),
            *unrendered_values(self.job),
            *unexpanded_values(self.job),
            *probed_findings(self.processes),
            *self._script_findings(known),
        )

    def _script_findings(self, known: Mapping[str, str]) -> list[Finding]:
        """What its scripts say; they are read when findings are asked for, and not before."""
        if not self.reads_script or not self.code.files:
            return []
        from azml_dist.script.findings import script_findings

        files = {file.path: file.source for file in self.code.files}
        return script_findings(self.job, files, dict(self.code.excluded), known)

    def at(self, place: Place) -> LaunchPlan:
        """The same plan at a known place: every placeholder is replaced by its value."""
        return replace(self, place=place)

    def without_script(self) -> LaunchPlan:
        """The same plan, with no finding about what the training script says."""
        return replace(self, reads_script=False)

    @property
    def marks(self) -> list[str]:
        """What must be known before this plan can start: a shell would read `<input a>` as redirections."""
        # No string of a job has a NUL in it, whereas a command may well contain a `<b>`.
        probe = self.at(self.place.with_marks_as("\0{}\0"))
        first_of_each_node = range(0, len(probe.processes), self.world.process_count_per_node)
        texts = [probe.command, *(text for rank in first_of_each_node for text in probe.processes[rank].env.values())]
        return list(dict.fromkeys(mark for text in texts for mark in text.split("\0")[1::2]))

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist plan --json` prints."""
        return {
            "name": self.job.name,
            "world": self.world._asdict(),
            "processes": [process._asdict() for process in self.processes],
            "startup": STARTUP,
            "command": self.command,
            "request": self.request,
            "code": {
                "root": self.code.root,
                "files": len(self.code.files),
                "bytes": self.code.bytes,
                "paths": [file.path for file in self.code.files],
                "excluded": [excluded._asdict() for excluded in self.code.excluded],
            },
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _page(self) -> Page:
        blocks: list[Block] = [Facts(plan_facts(self)), _processes(self)]
        blocks += [Folded("environment of each process", Facts(_env(self)))]
        blocks += [Folded("only in local runs, and only until your code starts", Facts(STARTUP.items()))]
        blocks += told(self.findings)
        return Page([str(self.world), self.world.distribution], blocks, self.job.display_name or self.job.name)

    def __repr__(self) -> str:
        name = self.job.display_name or self.job.name
        return f"<LaunchPlan {name}: {self.world}>" if name else f"<LaunchPlan: {self.world}>"


def plan_job(job: JobFields) -> LaunchPlan:
    """The plan of a job: offline, without credentials. Of the code folder it reads only file names and sizes.

    It goes by what the last probe of the configured workspace found out, if there was one.
    """
    if problems := [*open_problems(job), *unfilled(job), *file_problems(job)]:
        raise JobError.of(problems)
    code = job.local_code
    snapshot = take_snapshot(code) if code else NO_CODE
    if code and not snapshot.files and snapshot.excluded:
        raise JobError(
            f"the ignore file excludes every file of the code folder {code}:"
            f" {snapshot.excluded[0].rule!r} and its other rules",
            hint="azure-ai-ml refuses an empty upload: keep at least your script",
            where="code",
        )
    if snapshot.broken_links:
        raise JobError(
            f"the link `{snapshot.broken_links[0]}` in the code folder is broken",
            hint="azure-ai-ml uploads what a link points to, and fails on this one: fix it, or list it in .amlignore",
            where="code",
        )
    if snapshot.irregular:
        raise JobError(
            f"{snapshot.irregular[0]}, is in the code folder, but only files can be uploaded",
            hint="remove it, or list it in .amlignore",
            where="code",
        )
    return LaunchPlan(job, snapshot, service=service_here())


def plan_facts(plan: LaunchPlan) -> list[tuple[str, str]]:
    """The job as names and values."""
    job = plan.job
    facts = [("command", plan.command.strip())]
    facts.append(("code", _code(plan)))
    facts += [(f"input {name}", plan.place.value_of(job, "inputs", name)) for name in job.inputs]
    facts += [(f"output {name}", output.type) for name, output in job.outputs.items()]
    environment = job.environment
    if environment:
        build = f"built from {environment.build.path}" if not isinstance(environment, str) and environment.build else ""
        image = build if build else environment if isinstance(environment, str) else environment.image or ""
        facts.append(("environment", image))
    if job.compute or job.instance_type:
        facts.append(("compute", job.compute or f"serverless, {job.instance_type}"))
    return facts


def _code(plan: LaunchPlan) -> str:
    if plan.code.root is None:
        return plan.job.code or "none: the command starts in an empty folder"
    left_out = f", {len(plan.code.excluded):,} excluded" if plan.code.excluded else ""
    return f"{plan.code.root}: {plural(len(plan.code.files), 'file')}, {size_text(plan.code.bytes)}{left_out}"


def _processes(plan: LaunchPlan) -> Table:
    rows = [
        c and (str(c.rank), str(c.node_rank), str(c.local_rank), c.role, c.log) for c in abbreviated(plan.processes)
    ]
    return Table(("rank", "node", "local", "role", "log"), rows)


def _env(plan: LaunchPlan) -> list[tuple[str, str]]:
    """What the run sets in every process; `0 ... 7` if the first and the last process differ."""
    first, last = plan.processes[0].env, plan.processes[-1].env
    differing = [(name, f"{value} ... {last[name]}") for name, value in first.items() if last.get(name, value) != value]
    return [*differing, *((name, value) for name, value in first.items() if last.get(name) == value)]
