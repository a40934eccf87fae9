"""A part of the bad inputs that `make hostile` makes by the thousand; the same ones each time."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile.scalars import COMMAND, KEYS

from azml_dist import DistError, Job


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and writes to /dev/full")
def test_bad_input_is_refused_in_words_within_bounds_and_leaves_nothing_behind() -> None:
    """For a failure: `PYTHONPATH=tests python -m hostile --only NUMBER` says all of one input."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "hostile", "--count", "250"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)

    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert "250 bad inputs: " in ended.stdout
    assert "; 0 wrong\nnothing left running\n" in ended.stdout


class Mute:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
FIELDS = {name: value for name, value in COMMAND.items() if name in Job.model_fields} | {
    "command": "echo ${{inputs.epochs}}",
    "inputs": {"epochs": 3, "rate": 0.1, "data": {"path": "src"}},
    "node_count": 2,
    "timeout": 60,
}
OBJECTS: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1.5,
        10**30,
        10**5000,
        float("nan"),
        float("inf"),
        1j,
        b"x",
        b"\xff",
        set(),
        range(3),
        iter([]),
        ...,
    ),
    *(
        "",
        " ",
        "\0",
        "\x1b[2J",
        "\ud800",
        "a" * 300,
        "${{inputs.a",
        "$[[",
        "azureml:",
        "file:x",
        int,
        Exception(),
        object(),
    ),
    *(
        [],
        {},
        [[]],
        {"a": {}},
        {"type": []},
        {1: 2},
        {None: 1},
        {(1, 2): 3},
        CIRCLE,
        [Mute()],
        {"path": Mute()},
        Mute(),
    ),
)


@pytest.mark.parametrize("seed", range(4))
def test_a_job_of_odd_objects_is_a_job_or_an_error_of_ours(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/t.py").touch()
    made = 0
    for number in range(250):
        random_ = random.Random(f"{seed} {number}")
        fields = copy.deepcopy(FIELDS)
        inside, key = random_.choice(list(places(fields)))
        inside[key if random_.random() < 0.7 or isinstance(inside, list) else random_.choice(KEYS)] = random_.choice(
            OBJECTS
        )
        try:
            plan = Job(**fields).plan()
        except DistError as error:
            str(error).encode()  # no half of a character, which nothing can print
            continue
        made += 1
        json.dumps(plan.to_dict())
        (str(plan) + plan._repr_html_()).encode()
    assert 0 < made < 250


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])
