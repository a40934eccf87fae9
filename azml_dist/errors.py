"""The error classes: every error that a user can see is a `DistError`, with a message and a hint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

from azml_dist.words import plural, visible

if TYPE_CHECKING:
    from pathlib import Path


class Problem(NamedTuple):
    """One problem: where it is, what is wrong, and what to write instead."""

    message: str
    hint: str | None = None
    where: str | None = None
    """A YAML file and line, a field path, or both: `job.yml:7: distribution.type`."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


Level = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something in a job that is allowed but probably a mistake, to be fixed before the job waits in a queue."""

    code: str
    """A name that never changes, for searching and filtering."""
    level: Level
    """`error`: Azure ML or azure-ai-ml is sure to refuse it, or the run is sure to fail; `warning`: it may fail, or may
    not do what you meant; `note`: good to know."""
    message: str
    hint: str | None = None
    where: str | None = None
    step: str | None = None
    """In a pipeline: the name of the step."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints; `step` only for a finding of a step."""
        return {name: value for name, value in self._asdict().items() if name != "step" or value}


def said_once(findings: Iterable[Finding]) -> dict[Finding, list[str]]:
    """The findings in their order, without their steps, and which steps each of them is of."""
    found: dict[Finding, list[str]] = {}
    for finding in findings:
        steps = found.setdefault(finding._replace(step=None), [])
        if finding.step and finding.step not in steps:
            steps.append(finding.step)
    return found


def any_error(findings: Iterable[Finding]) -> bool:
    """Whether a job is sure to be refused or to fail."""
    return any(finding.level == "error" for finding in findings)


def counted(findings: Sequence[Finding]) -> str:
    """How many findings there are of each level, worst first: `1 error, 2 notes`."""
    levels = [finding.level for finding in findings]
    counts = [(level, levels.count(level)) for level in get_args(Level)]
    return ", ".join(plural(count, level) for level, count in counts if count)


class DistError(Exception):
    """The base class of all errors of this package; `str(error)` is the text for people."""

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        self.problems: Sequence[Problem] = (Problem(message, hint, where),)
        super().__init__(message)

    @property
    def hint(self) -> str | None:
        """What to do about the first problem, if known."""
        return self.problems[0].hint

    def __str__(self) -> str:
        blocks = (f"{p}\n\nhint: {p.hint}" if p.hint else str(p) for p in self.problems)
        return visible("\n".join(blocks))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows below a cell: the message, and the lines that led to it if there are several."""
        import traceback
        from pathlib import Path

        here = Path(__file__).parent
        frames = [(frame, Path(frame.filename)) for frame in traceback.extract_tb(self.__traceback__)]
        own = [f for f, path in frames if not {here, "site-packages", "dist-packages"} & {*path.parents, *path.parts}]
        way = [f"  line {f.lineno}, in {f.name}: {f.line}" for f in own] if len(own) > 1 else []
        return [*way, f"{type(self).__name__}: {self}"]


class JobError(DistError):
    """The job is invalid, or would not do what it says."""

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> JobError:
        """One error for all problems, each once, in the order in which they appear in the job."""
        found = tuple(dict.fromkeys(problems))
        error = cls(found[0].message)
        error.problems = found
        return error


class LaunchError(DistError):
    """A launcher is missing, or did not start the expected processes."""


class SubmitError(DistError):
    """Azure refused the job, or could not be reached."""

    request_id: str | None = None
    """The id of the failed request, for Azure support."""


class AuthError(SubmitError):
    """You are not logged in, or your login lacks the permission."""


class NotFound(SubmitError):
    """The named run, workspace, compute, environment or data does not exist."""


class FailedRun(Protocol):
    """What you can ask the run that failed; it is a complete `azml_dist.Run`."""

    name: str

    @property
    def status(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def outputs(self) -> Mapping[str, Path | str]: ...

    def logs(self, rank: int | None = None, *, tail: int | None = None) -> Iterable[str]: ...

    def download(self, folder: str | Path) -> Path: ...

    def describe(self) -> dict[str, Any]: ...

    def ending(self) -> Any: ...


class RunFailed(DistError):
    """The run failed or was cancelled. `run` is its handle, `failed_rank` the rank that failed first."""

    def __init__(
        self,
        message: str,
        *,
        run: FailedRun,
        failed_rank: int | None = None,
        exit_codes: dict[int, int | None] | None = None,
        log_tail: str = "",
        hint: str | None = None,
        ending: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.run = run
        self.failed_rank = failed_rank
        self.exit_codes = exit_codes or {}
        """Exit code by rank; None for a process that was killed by a signal."""
        self.log_tail = log_tail
        """The last lines of the failed process."""

        self.ending = ending
        """What is shown of a run that has ended: who failed and why, where its logs are, what to type next."""

    @property
    def verdict(self) -> Any:
        """Why it failed, like `run.verdict()`; None if unknown."""
        ask = getattr(self.run, "verdict", None)
        return ask() if ask else None

    @property
    def reason(self) -> Any:
        """Why it failed in one word, like `run.reason()`; None if unknown."""
        ask = getattr(self.run, "reason", None)
        return ask() if ask else None

    def __str__(self) -> str:
        if self.ending:  # it has the hint, and shows less of the log than everything
            return f"{visible(str(self.problems[0]))}\n\n{self.ending}"
        tail = f"\n\n{self.log_tail.rstrip()}" if self.log_tail else ""
        return super().__str__() + tail
