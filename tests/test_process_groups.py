"""What we show and run ends its process group: a gloo group that is left over can abort its process at exit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
JOINS = re.compile(
    r"\b(init_process_group|init_device_mesh|init_distributed|Trainer|Seq2SeqTrainer|SFTTrainer|Fabric|Accelerator|"
    r"PartialState)\("
)
ENDS = re.compile(r"^\s*([\w.]+\.)?(destroy_process_group|end_training)\(", re.MULTILINE)
FENCED = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs() -> dict[str, str]:
    """The scripts of samples and tests, and the Python blocks of documents, that join a process group."""
    scripts = [*REPOSITORY.glob("samples/*/*.py"), *REPOSITORY.glob("tests/scripts/*/*.py")]
    found = {str(file.relative_to(REPOSITORY)): file.read_text() for file in scripts}
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("samples/**/*.md")]:
        blocks = enumerate(FENCED.findall(page.read_text()))
        found |= {f"{page.relative_to(REPOSITORY)}, Python block {number}": text for number, text in blocks}
    return {name: text for name, text in sorted(found.items()) if JOINS.search(text)}


@pytest.mark.parametrize("name", programs())
def test_a_program_that_joins_a_process_group_ends_it(name: str) -> None:
    assert ENDS.search(programs()[name])


def test_programs_of_samples_tests_and_documents_are_looked_at() -> None:
    assert {
        "samples/quickstart/train.py",
        "samples/lightning/train.py",
        "samples/accelerate/train.py",
        "samples/deepspeed_zero/train.py",
        "tests/scripts/libraries/lit.py",
    } < set(programs())
    assert any(name.startswith("docs/start.md") for name in programs())
