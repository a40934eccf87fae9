"""`make score-scripts FOLDERS="…"`: what is found in training scripts of others, for somebody to judge.

Each script that trains is planned as 2 nodes x 4 processes; nothing of the folders is run or kept.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from azml_dist import DistError, Job, PyTorch
from azml_dist.errors import Finding
from scriptscore.cases import CASES

CODES = {case.code for case in CASES}
_TRAINS = re.compile(
    r"^\s*(?:import|from)\s+(?:torch|tensorflow|lightning|pytorch_lightning|accelerate|deepspeed|horovod|transformers)\b",
    re.MULTILINE,
)
_STARTS = re.compile(r"__main__|ArgumentParser|\bsys\.argv\b|init_process_group")


def scripts(folder: Path) -> Iterator[Path]:
    """Files that import a framework and can be started."""
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if _TRAINS.search(text) and _STARTS.search(text):
            yield file


def found(script: Path) -> list[Finding]:
    """What a plan says of a script, in a job of its own folder; not which arguments it needs, as the job gives none."""
    job = Job(
        command=["python", script.name],
        code=str(script.parent),
        node_count=2,
        environment="azureml:torch:1",
        distribution=PyTorch(process_count_per_node=4),
    )
    return [one for one in job.plan().findings if one.code in CODES - {"arguments"}]


def main(*folders: str) -> None:
    for folder in map(Path, folders):
        levels: Counter[str] = Counter()
        count = 0
        for script in scripts(folder):
            try:
                findings = found(script)
            except DistError as error:
                print(f"{script.relative_to(folder)}: not planned: {error.problems[0].message}")
                continue
            count += 1
            levels.update(one.level for one in findings)
            for one in findings:
                print(f"{script.relative_to(folder)}: {one.level} {one.code}: {one}")
        print(f"{folder.name}: {count} scripts, {levels['error']} errors, {levels['warning']} warnings\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
