"""What a page has. Times are seconds since the run started; None where something is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Pairs = Sequence[tuple[str, str]]


@dataclass
class Bar:
    """A part of a row in the timeline."""

    kind: str
    """Its colour: `start` (no line yet), `live`, `good`, `warn` (stopped), `bad` (failed), `silent`."""
    begin: float
    end: float


@dataclass
class Row:
    """A rank, a trial or a step, as it went."""

    label: str
    ended: str
    """How it ended, in words."""
    bars: Sequence[Bar] = ()
    start: float | None = None
    first_line: float | None = None
    last_line: float | None = None
    end: float | None = None
    failed: float | None = None
    """When it failed by itself: the time of the line that says so, or else of its end."""
    quiet: float | None = None
    """For how many seconds it had been silent when it was stopped."""
    steps: Sequence[tuple[float, int]] = ()
    log: int | None = None
    """Its log: the place in the sheet's logs."""


@dataclass
class Rank(Row):
    """A rank on the picture of the plan and in the timeline."""

    rank: int = 0
    node: int = 0
    role: str = "worker"
    outcome: str = "waiting"
    """`completed`, `failed`, `stopped`, `running`, `waiting`, `never` or `unknown`."""
    blame: str | None = None
    """`failed first`, or `keeps the others waiting`."""


@dataclass
class Moment:
    """A line across the timeline."""

    kind: str
    """`cut` for a failure, `fault` for a fault on purpose and a new attempt."""
    at: float
    text: str


@dataclass
class Text:
    """A log, or its beginning and its end."""

    label: str
    path: str
    href: str | None
    bytes: int | None
    size: str
    lines: Sequence[str | None]
    """None is the gap."""
    first: int | None = 1
    """The number of the first line; None if it is not known."""
    after: int | None = None
    """The number of the first line after the gap."""
    omitted: str | None = None
    """What is in the gap."""
    order: Sequence[int | None] = ()
    """When each line arrived: its record in the index, as the difference to the last one that is known."""
    bad: Sequence[int] = ()
    """The places of the lines that a verdict is based on."""
    note: str | None = None
    member: str | None = None


@dataclass
class Evidence:
    """A line that the verdict is based on."""

    place: str
    text: str
    log: int | None
    line: int | None


@dataclass
class Series:
    label: str
    points: Sequence[tuple[float, float | None]]
    """None is a value that is not finite."""


@dataclass
class Plot:
    title: str
    series: Sequence[Series]
    x: str = "step"
    unit: str = ""
    note: str | None = None


@dataclass
class Output:
    name: str
    path: str
    href: str | None
    told: str
    """How many files it has, and how large they are."""
    files: Sequence[Mapping[str, str | None]] = ()


@dataclass
class Member:
    """A trial of a sweep, or a step of a pipeline."""

    label: str
    number: int
    name: str
    status: str
    took: float | None
    values: Mapping[str, Any] = field(default_factory=dict)
    metric: float | None = None
    best: bool = False
    error: str | None = None


@dataclass
class Group:
    kind: str
    """`sweep` or `pipeline`."""
    members: Sequence[Member]
    names: Sequence[str] = ()
    """The hyperparameters."""
    metric: str | None = None
    objective: str = ""
    links: Sequence[Mapping[str, str]] = ()
    """Which step reads which output: `from`, `output`, `to`, `input`."""
    no_links: str = "No step reads the output of another one."


@dataclass
class Sheet:
    """A page: everything that it shows."""

    name: str
    status: str
    tone: str
    """`good`, `bad`, `live` or ``."""
    line: str
    """The most important facts on one line."""
    text: str = ""
    """What is shown without JavaScript."""
    why: str | None = None
    said: str | None = None
    """What else the run's own error says."""
    ending: Sequence[tuple[str, str, Sequence[str]]] = ()
    """Rows of a name, a text and quoted lines."""
    evidence: Sequence[Evidence] = ()
    stacks: Sequence[Mapping[str, str]] = ()
    notes: Sequence[str] = ()
    world: str = ""
    command: str | None = None
    ranks: Sequence[Rank] = ()
    rows: Sequence[Row] = ()
    """The rows of the timeline if it has no ranks."""
    span: float = 0.0
    first_failure: float | None = None
    told: str | None = None
    """The timeline in one sentence."""
    no_timeline: str | None = None
    moments: Sequence[Moment] = ()
    plots: Sequence[Plot] = ()
    no_plots: str | None = None
    system: Sequence[Plot] = ()
    no_system: str | None = None
    logs: Sequence[Text] = ()
    no_logs: str | None = None
    log_first: int | None = None
    """The log that is shown at first."""
    clock: Sequence[tuple[int, float]] = ()
    """From which record on lines arrived at which time."""
    inputs: Pairs = ()
    outputs: Sequence[Output] = ()
    facts: Pairs = ()
    variables: Pairs = ()
    next: Pairs = ()
    foot: str = ""
    group: Group | None = None
