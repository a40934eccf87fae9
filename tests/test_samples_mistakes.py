"""What a sample's script says of a mistake in how it is run: one line, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from needs import needs
from sampling import script

TORCH = needs("torch", "sklearn")
ALONE = json.dumps({"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}})
NO_SERVER = json.dumps(
    {"cluster": {"ps": [], "worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}
)
NOWHERE = "--resume-from nowhere"


@pytest.mark.parametrize(
    ("sample", "variable", "args", "said"),
    [
        pytest.param(*case, marks=mark, id=f"{case[0]} {case[1]} {case[2]}".strip())
        for mark, *case in (
            (
                TORCH,
                "pytorch_tensor_parallel",
                "WORLD_SIZE=3",
                "",
                "3 processes: the number must divide the 512 columns",
            ),
            (TORCH, "pytorch_pipeline_parallel", "WORLD_SIZE=5", "", "5 processes: too many for 4 blocks"),
            (TORCH, "pytorch_pipeline_parallel", "WORLD_SIZE=2", "--microbatches 3", "a divisor of --batch-size"),
            (TORCH, "gpt_char", "WORLD_SIZE=3", "--tensor-parallel 2", "must divide the processes"),
            (TORCH, "gpt_char", "WORLD_SIZE=3", "", "rows, --batch-size"),
            (TORCH, "gpt_char", "WORLD_SIZE=2", "--tensor-parallel 2 --width 48", "the heads (--width / 16)"),
            (
                needs("tensorflow"),
                "tensorflow_parameter_server",
                f"TF_CONFIG={ALONE}",
                "",
                "one parameter server: 2 nodes, 1 server",
            ),
            (
                needs("tensorflow"),
                "tensorflow_parameter_server",
                f"TF_CONFIG={NO_SERVER}",
                "",
                "one parameter server: 2 nodes, 1 server",
            ),
            (TORCH, "pytorch_ddp", "", NOWHERE, "--resume-from: there is no folder nowhere"),
            (needs("mpi4py"), "mpi_allreduce", "", NOWHERE, "--resume-from: there is no folder nowhere"),
            (needs("tensorflow"), "tensorflow_multiworker", "", NOWHERE, "--resume-from: there is no folder nowhere"),
        )
    ],
)
def test_a_mistake_is_said_in_a_line(
    sample: str, variable: str, args: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(*variable.split("=", 1))

    ended = script(sample, "train.py", *args.split(), root=tmp_path)

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("train.py: error: ")
    assert said in ended.stderr.splitlines()[-1]
