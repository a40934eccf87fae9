"""The states of a run, in the words of Azure ML. Standard library only: the supervisor imports it."""

from __future__ import annotations

from enum import Enum


class RunStatus(str, Enum):
    """The state of a run, in Azure ML's words (azure-ai-ml, `RunHistoryConstants`)."""

    NOT_STARTED = "NotStarted"
    STARTING = "Starting"
    PROVISIONING = "Provisioning"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    CANCEL_REQUESTED = "CancelRequested"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    NOT_RESPONDING = "NotResponding"
    PAUSED = "Paused"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, value: object) -> RunStatus:
        """The same word in another case, or one that Azure has added since."""
        known = {status.value.lower(): status for status in cls}
        return known.get(str(value).lower(), cls.UNKNOWN)

    @property
    def is_final(self) -> bool:
        """The state is final."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELED)

    @property
    def may_be_final(self) -> bool:
        """azure-ai-ml treats the state as final, but it may change: a node may respond again."""
        return self in (RunStatus.NOT_RESPONDING, RunStatus.PAUSED)

    def __str__(self) -> str:
        return self.value

    # It equals its word, which is what `run.json` contains, and can be looked up by it.
    __hash__ = str.__hash__
