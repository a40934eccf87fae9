"""The error tree: every error a user can meet is a `DistError`, with a message and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from azml_dist.runs import Run


class Problem(NamedTuple):
    """One thing that is wrong: where it is, what it is, and what to write instead."""

    message: str
    hint: str | None = None
    where: str | None = None
    """A YAML file and line, a field path, or both: `job.yml:7: distribution.type`."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """A text whose control characters do nothing to a terminal: what a job says is shown, and never obeyed."""
    return _UNSEEN.sub(lambda c: f"\\x{ord(c[0]):02x}", text)


class DistError(Exception):
    """The base of every error of this package; `str(error)` is what a person should read."""

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        self.problems: Sequence[Problem] = (Problem(message, hint, where),)
        super().__init__(message)

    @property
    def hint(self) -> str | None:
        """What to do about the first problem, where that is known."""
        return self.problems[0].hint

    def __str__(self) -> str:
        blocks = (f"{p}\n\nhint: {p.hint}" if p.hint else str(p) for p in self.problems)
        return "\n".join(blocks)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows below a cell: the message, and the way to it where that is longer than the cell."""
        import traceback
        from pathlib import Path

        here = Path(__file__).parent
        frames = [(frame, Path(frame.filename)) for frame in traceback.extract_tb(self.__traceback__)]
        own = [f for f, path in frames if not {here, "site-packages", "dist-packages"} & {*path.parents, *path.parts}]
        way = [f"  line {f.lineno}, in {f.name}: {f.line}" for f in own] if len(own) > 1 else []
        return [*way, f"{type(self).__name__}: {self}"]


class JobError(DistError):
    """The job cannot mean anything, or not what it says."""

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> JobError:
        """One error for all problems that were found, in the order they stand in the job."""
        found = tuple(problems)
        error = cls(found[0].message)
        error.problems = found
        return error


class LaunchError(DistError):
    """A launcher is missing, or did not start the processes it was asked for."""


class SubmitError(DistError):
    """Azure refused the job, or could not be reached."""

    request_id: str | None = None
    """Of the request that failed: Azure's support finds it by that."""


class AuthError(SubmitError):
    """Nobody is logged in, or the login may not do this."""


class NotFound(SubmitError):
    """The named run, workspace, compute, environment or data does not exist."""


class RunFailed(DistError):
    """The run ended, and not well. `run` is its handle, `failed_rank` the process that failed first."""

    def __init__(
        self,
        message: str,
        *,
        run: Run,
        failed_rank: int | None = None,
        exit_codes: dict[int, int | None] | None = None,
        log_tail: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.run = run
        self.failed_rank = failed_rank
        self.exit_codes = exit_codes or {}
        """Exit code by rank; None for a process that a signal ended."""
        self.log_tail = log_tail
        """The last lines the failed process wrote."""

    def __str__(self) -> str:
        tail = f"\n\n{self.log_tail.rstrip()}" if self.log_tail else ""
        return super().__str__() + tail
