"""What a page needs of a run on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from azml_dist.local.state import RunState
from azml_dist.runs.metrics import Metrics
from azml_dist.runs.system import System
from azml_dist.show import Card
from azml_dist.verdict.recovery import Recovery
from azml_dist.verdict.stacked import Stacks
from azml_dist.verdict.verdict import Verdict


class RunHere(Protocol):
    """A `LocalRun`, which itself knows how to make its page."""

    name: str

    @property
    def folder(self) -> Path: ...

    @property
    def outputs(self) -> Mapping[str, Path]: ...

    def state(self) -> RunState: ...

    def verdict(self) -> Verdict | None: ...

    def stacks(self, rank: int | None = None) -> Stacks: ...

    def metrics(self) -> Metrics: ...

    def recovery(self) -> Recovery | None: ...

    def system(self) -> System | None: ...

    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card: ...
