"""How a deliberate fault is written: `kill:rank=2@step=3`. Pure, and needs only the standard library.

`KIND:OPTION=VALUE,…@TRIGGER`: what happens, to whom, and when.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from azml_dist.errors import JobError
from azml_dist.words import nearest_or_all, plural

ANY = "any"
"""`rank=any`: one chosen at random, from the seed."""


class Kind(NamedTuple):
    """The options of a kind of fault."""

    does: str
    """What is announced before it happens, with its options filled in."""
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    """Exactly one of these options is needed."""
    from_the_start: bool = False
    """It has no trigger."""


KINDS = {
    "kill": Kind("kill {target}", one_of=("rank", "node")),
    "stop": Kind("stop {target}{for}", needs=("rank",), takes=("for",)),
    "exit": Kind("end {target} with exit code {code}", needs=("rank",), takes=("code",)),
    "preempt": Kind("evict {target}", takes=("node",)),
    "slow": Kind("slow {target} down to 1/{x}{for}", needs=("rank", "x"), takes=("for",)),
    "partition": Kind("cut {target} off the network{for}", needs=("node",), takes=("for",)),
    "rate": Kind("limit the network of {target} to {mbit} Mbit/s{for}", needs=("node", "mbit"), takes=("for",)),
    "disk": Kind("give {target} a disk of {size}", needs=("node", "size"), from_the_start=True),
    "input": Kind("remove the input {input}", needs=("input",)),
    "save": Kind(
        "kill {target} while it writes file {n} of {output}",
        needs=("n",),
        takes=("rank", "output"),
        from_the_start=True,
    ),
}
_EXAMPLES = {
    "kill": "kill:rank=2@step=3",
    "stop": "stop:rank=1,for=20s@10s",
    "exit": "exit:rank=0,code=3@10s",
    "preempt": "preempt@5s-20s",
    "slow": "slow:rank=1,x=5",
    "partition": "partition:node=1,for=20s@10s",
    "rate": "rate:node=1,mbit=10",
    "disk": "disk:node=0,size=64m",
    "input": "input:data@10s",
    "save": "save:n=2",
}
FROM_THE_START = "from the start"
_TRIGGERS = "`@10s`, `@5s-20s`, `@step=3` or `@line=REGEX`"


@dataclass(frozen=True)
class Fault:
    """One fault. Values that are not set or not drawn yet are None."""

    spec: str
    """The text it was written as."""
    kind: str
    rank: int | str | None = None
    node: int | str | None = None
    seconds: float | None = None
    """How many seconds it lasts; None means permanently."""
    code: int = 0
    times: float = 1.0
    """By which factor it slows a rank down."""
    mbit: float = 0.0
    size: int = 0
    count: int = 0
    """Which file of a `save`, from 1."""
    name: str | None = None
    """The name of an input or an output."""
    after: float | None = None
    """Seconds after all processes have started; with `until`, drawn between the two."""
    until: float | None = None
    step: int | None = None
    line: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def what(self) -> str:
        """`kill rank 2`."""
        values = {
            "target": self.target,
            "for": f" for {self.seconds:g} s" if self.seconds else "",
            "code": self.code,
            "x": f"{self.times:g}",
            "mbit": f"{self.mbit:g}",
            "size": f"{self.size / (1 << 20):g} MiB",
            "input": self.name,
            "n": self.count,
            "output": f"output {self.name}" if self.name else "the named outputs",
        }
        return KINDS[self.kind].does.format(**values)

    @property
    def target(self) -> str:
        """`rank 2`, `node 1`, `all nodes`."""
        if self.rank is not None:
            return "any rank" if self.rank == ANY else f"rank {self.rank}"
        if self.node is not None:
            return "any node" if self.node == ANY else f"node {self.node}"
        return "all nodes" if self.kind == "preempt" else "the process"

    @property
    def waits_for_lines(self) -> bool:
        """Whether its trigger is something that a rank prints."""
        return self.step is not None or self.line is not None

    @property
    def when(self) -> str:
        """When it should happen, for people."""
        if self.step is not None:
            return f"at the {ordinal(self.step)} line with a step"
        if self.line is not None:
            return f"at the first line that matches `{self.line}`"
        if self.until is not None:
            return f"between {self.after:g} and {self.until:g} s after all processes have started"
        if self.after:
            return f"{self.after:g} s after all processes have started"
        if KINDS[self.kind].from_the_start or self.kind == "input":
            return FROM_THE_START
        return "when all processes have started"


def ordinal(number: int) -> str:
    """`3rd`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def parse(spec: str) -> Fault:
    """The fault that a string describes. Raises `JobError`."""
    if not isinstance(spec, str):
        raise JobError(f"a fault is a string, not {spec!r}", hint=_example("kill"))
    head, at, trigger = spec.strip().partition("@")
    kind, _, words = head.partition(":")
    kind = kind.strip().lower()
    if kind not in KINDS:
        raise _wrong(spec, f"there is no fault `{kind}`", nearest_or_all(kind, KINDS) or f"known: {', '.join(KINDS)}")
    options = _options(spec, kind, words)
    fault = replace(
        Fault(spec.strip(), kind),
        **{k: v for name, text in options.items() for k, v in _value(spec, name, text).items()},
    )
    return replace(fault, **_trigger(spec, kind, trigger.strip())) if at else fault


def check_pattern(pattern: str, what: str) -> re.Pattern[str]:
    """Checks a regular expression of the user. Raises `JobError`."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise JobError(
            f"{what} `{pattern}` is not a regular expression: {error}",
            hint="write a literal `(`, `[` or `*` as `\\(`, `\\[` or `\\*`",
        ) from error


def _example(kind: str) -> str:
    return f"for example `{_EXAMPLES[kind]}`"


def _wrong(spec: str, message: str, hint: str | None) -> JobError:
    return JobError(f"fault `{spec}`: {message}", hint=hint)


def _options(spec: str, kind: str, words: str) -> dict[str, str]:
    shape = KINDS[kind]
    known = (*shape.one_of, *shape.needs, *shape.takes)
    found: dict[str, str] = {}
    for word in filter(None, (word.strip() for word in words.split(","))):
        name, equals, value = (part.strip() for part in word.partition("="))
        if kind == "input" and not equals:
            name, value = "input", name
        if name not in known:
            raise _wrong(spec, f"`{kind}` has no option `{name}`", nearest_or_all(name, known))
        if not value:
            raise _wrong(spec, f"`{name}` has no value", _example(kind))
        if name in found:
            raise _wrong(spec, f"`{name}` appears twice", "write each option once; for two faults, `--fault` twice")
        found[name] = value
    given = [name for name in shape.one_of if name in found]
    if len(given) > 1:
        raise _wrong(spec, f"it has both `{given[0]}` and `{given[1]}`", _example(kind))
    missing = [name for name in shape.needs if name not in found]
    if shape.one_of and not given:
        missing = [" or ".join(shape.one_of)]
    if missing:
        what = "the name of an input" if missing == ["input"] else f"`{missing[0]}`".replace(" or ", "` or `")
        raise _wrong(spec, f"`{kind}` needs {what}", _example(kind))
    return found


def _value(spec: str, name: str, text: str) -> dict[str, Any]:
    """The field of a `Fault` that an option sets."""
    if name in ("rank", "node"):
        return {name: ANY if text.lower() == ANY else _whole(spec, name, text, 0, f"write a number, or `{name}=any`")}
    if name == "for":
        return {"seconds": _seconds(spec, text)}
    if name == "code":
        return {"code": _whole(spec, name, text, 0, "exit codes are 0 to 255", most=255)}
    if name == "x":
        return {"times": _figure(spec, name, text, more_than=1, hint="`x=5` leaves it a fifth of the time")}
    if name == "mbit":
        return {"mbit": _figure(spec, name, text, more_than=0, hint="`mbit=10` is 10 Mbit/s")}
    if name == "size":
        return {"size": _size(spec, text)}
    if name == "n":
        return {"count": _whole(spec, name, text, 1, "`n=1` is the first file")}
    return {"name": text}


def _whole(spec: str, name: str, text: str, least: int, hint: str, most: int = 10**9) -> int:
    number = int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else -1
    if not least <= number <= most:
        raise _wrong(spec, f"`{name}={text}` is not valid", hint)
    return number


def _figure(spec: str, name: str, text: str, *, more_than: float, hint: str) -> float:
    number = float(text) if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text, re.ASCII) else -1.0
    if number <= more_than:
        raise _wrong(spec, f"`{name}={text}` is not valid: it must be greater than {more_than:g}", hint)
    return number


_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = r"(\d{1,9}(?:\.\d{1,9})?) *(ms|s|sec|min|m|h)"
_SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _seconds(spec: str, text: str) -> float:
    found = re.fullmatch(_DURATION, text, re.ASCII)
    if not found or not (seconds := float(found[1]) * _UNITS[found[2]]):
        raise _wrong(spec, f"`{text}` is not a duration", "write it with its unit, such as `20s`, `500ms` or `2m`")
    return seconds


def _size(spec: str, text: str) -> int:
    found = re.fullmatch(r"(\d{1,9}) *([kmg])(?:i?b)?", text.lower(), re.ASCII)
    if not found or not (size := int(found[1]) * _SIZES[found[2]]):
        raise _wrong(spec, f"`{text}` is not a size", "write it with its unit, such as `64m` or `1g`")
    return size


def _trigger(spec: str, kind: str, text: str) -> dict[str, Any]:
    """The fields for the time."""
    if KINDS[kind].from_the_start:
        raise _wrong(spec, f"`{kind}` cannot have a trigger", f"leave out `@{text}`: {_whole_time(kind)}")
    if text.startswith("line="):
        pattern = text.removeprefix("line=")
        if not pattern:
            raise _wrong(spec, "`@line=` has no regular expression", "for example `kill:rank=2@line=epoch 3`")
        check_pattern(pattern, f"fault `{spec}`:")
        return {"line": pattern}
    first, comma, more = text.partition(",")
    if comma:
        head = spec.strip().partition("@")[0]
        raise _wrong(spec, f"options go before the trigger, and `{more}` is after it", f"write `{head},{more}@{first}`")
    if text.startswith("step="):
        return {"step": _whole(spec, "step", text.removeprefix("step="), 1, "`@step=1` is the first line with a step")}
    if re.fullmatch(r"0+(?:\.0+)? *(?:ms|s)", text, re.ASCII):
        return {}
    span = re.fullmatch(f"{_DURATION} *- *{_DURATION}", text, re.ASCII)
    if span:
        begin, end = (_seconds(spec, part) for part in re.split(" *- *", text))
        if begin >= end:
            raise _wrong(spec, f"`{text}` ends before it begins", f"write `@{end:g}s-{begin:g}s`")
        return {"after": begin, "until": end}
    if re.fullmatch(_DURATION, text, re.ASCII):
        return {"after": _seconds(spec, text)}
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise _wrong(spec, f"`@{text}` has no unit", f"write `@{text}s`, or `@step={text}`")
    raise _wrong(spec, f"`@{text}` is not a trigger", f"write {_TRIGGERS}")


def _whole_time(kind: str) -> str:
    return "the disk is small from the start" if kind == "disk" else "its file is the trigger"


def drawn(fault: Fault, seed: int, number: int, ranks: int, nodes: int) -> Fault:
    """The fault with everything random decided, always the same for the same seed."""
    import random  # takes longer to import than all else here, and few need it

    if ANY not in (fault.rank, fault.node) and fault.until is None:
        return fault
    chance = random.Random(f"{seed} {number} {fault.spec}")
    after = fault.after if fault.until is None else round(chance.uniform(fault.after or 0, fault.until), 3)
    rank = chance.randrange(ranks) if fault.rank == ANY and fault.kind != "save" else fault.rank
    node = chance.randrange(nodes) if fault.node == ANY else fault.node
    return replace(fault, rank=rank, node=node, after=after, until=None)


def check_places(fault: Fault, ranks: int, nodes: int) -> None:
    """Raises `JobError` if a fault names a rank or a node that the job does not have."""
    for name, place, count in (("rank", fault.rank, ranks), ("node", fault.node, nodes)):
        if isinstance(place, int) and place >= count:
            has = f"it has {plural(count, name)}"
            which = f"{name} 0" if count == 1 else f"{name}s 0 to {count - 1}"
            raise _wrong(
                fault.spec, f"the job has no {name} {place}", f"{has}: {which}; `{name}=any` chooses one at random"
            )
