"""The comparison with azure-ai-ml that `make compare` runs on any folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "compare.py"
JOBS = {
    "good.yml": "command: echo\nenvironment: azureml:e:1\n",
    "sub/good.yaml": "type: pipeline\njobs: {a: {command: echo, environment: 'azureml:e:1', compute: 'azureml:c'}}\n",
    "wrong.yml": "command: echo\nenvironment: azureml:e:1\ninputz: {}\n",
    "alone.yml": "command: echo ${{inputs.a}}\nenvironment: azureml:e:1\ncompute: my cluster\ninputs: {a: 1}\n",
    "lax.yml": "command: echo\n",
    "conda.yml": "name: e\ndependencies: [pip]\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in JOBS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_differs_is_counted_and_named_with_its_reason(folder: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=True)

    said = done.stdout.splitlines()
    assert {line for line in said if line[:1] != " "} == {
        "both take it: 2",
        "both refuse: 1",
        "we refuse: 1",
        "azure-ai-ml refuses: 1",
    }
    at = said.index("we refuse: 1")
    assert said[at + 1].strip() == "1 … is not valid: the name of a compute cannot contain spaces"
    assert said[at + 2].strip() == str(folder / "alone.yml")
