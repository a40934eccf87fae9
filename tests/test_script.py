"""What a training script says, held against its job, without a look at anything but texts."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
from scriptscore.cases import ONE, TORCH, Case
from scriptscore.public import main as score_folders
from scriptscore.score import CODES, EVERY, into, wrong

from azml_dist import Environment, Job, Mpi, PyTorch
from azml_dist.errors import Finding
from azml_dist.job import Build
from azml_dist.listed import other_versions, pins_of
from azml_dist.local.versions import other_versions_here
from azml_dist.notation.argv import UNKNOWN, commands

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("case", EVERY, ids=[f"{case.code}-{i}" for i, case in enumerate(EVERY)])
def test_a_mistake_is_found_and_what_is_right_is_not(case: Case) -> None:
    assert wrong(case) is None


def test_every_finding_has_three_cases_of_both_kinds() -> None:
    for code in CODES:
        levels = [case.level for case in EVERY if case.code == code]
        assert len([level for level in levels if level]) >= 3, code
        assert levels.count(None) >= 3, code


def test_the_documents_have_the_score_and_each_finding() -> None:
    page = (DOCS / "script.md").read_text(encoding="utf-8")
    assert into(page) == page
    assert [code for code in CODES if f"### {code}\n" not in page] == []


def found(folder: Path, script: str | bytes, **fields: Any) -> list[Finding]:
    """What is found in a script."""
    content = script.encode() if isinstance(script, str) else script
    (folder / "train.py").write_bytes(content)
    job = Job(**{"command": "python train.py", "code": folder, "distribution": PyTorch(), **fields})
    return [f for f in job.plan().findings if (f.where or "").startswith(("train.py", "lib", "command"))]


def test_a_finding_says_where_it_is_and_what_to_write(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, 'import os\n\nn = int(os.environ["LOCAL_WORLD_SIZE"])\n')
    assert (finding.code, finding.level, finding.where) == ("variable-not-set", "error", "train.py:3")
    assert "only torchrun sets it" in str(finding.hint)


def test_the_nearest_argument_is_the_hint(tmp_path: Path) -> None:
    script = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--epochs', type=int)\np.parse_args()\n"
    (finding,) = found(tmp_path, script, command="python train.py --epoch5 3")
    assert finding.message.endswith("unrecognized arguments: --epoch5 3")
    assert "--epochs" in str(finding.hint)


@pytest.mark.parametrize(
    "comment", ["  # azml-dist: ignore[variable-not-set]", "  # azml-dist: ignore[a, variable-not-set]"]
)
def test_a_comment_on_the_line_leaves_a_finding_out(tmp_path: Path, comment: str) -> None:
    line = 'import os\nn = os.environ["LOCAL_WORLD_SIZE"]'
    assert found(tmp_path, line + comment + "\n") == []
    assert found(tmp_path, "import os\n" + comment.strip() + "\n" + line.split("\n")[1] + "\n") == []
    assert len(found(tmp_path, line + "  # azml-dist: ignore[arguments]\n")) == 1


def test_nothing_of_the_script_is_run_or_imported(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("open('ran', 'w')\n", encoding="utf-8")
    found(tmp_path, f"import lib\nopen({str(tmp_path / 'ran')!r}, 'w')\nimport azml_dist_was_here\n")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (b"import os\nx = (\n", "was never closed"),
        (b"x = '\xff\xfe'\n", "not UTF-8"),
        (b"# -*- coding: no-such -*-\n", "not UTF-8"),
        (b"x = 1\x00\n", "null bytes"),
        (b"x = " + b"(" * 5000 + b")" * 5000 + b"\n", ""),
        (b"#" * 2_000_001, "2 MB"),
    ],
)
def test_a_script_that_cannot_be_read_is_a_note(tmp_path: Path, script: bytes, why: str) -> None:
    (finding,) = found(tmp_path, script)
    assert (finding.code, finding.level) == ("script-not-read", "note")
    assert why in finding.message


def test_an_encoding_that_the_script_names_is_used(tmp_path: Path) -> None:
    script = "# -*- coding: latin-1 -*-\nimport os\nname = 'ä'\nos.environ['LOCAL_WORLD_SIZE']\n".encode("latin-1")
    assert [f.code for f in found(tmp_path, script)] == ["variable-not-set"]


def test_imports_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "lib1.py").write_text("import lib2, train\n", encoding="utf-8")
    (tmp_path / "lib2.py").write_text("import lib1\nimport os\nos.environ['LOCAL_WORLD_SIZE']\n", encoding="utf-8")
    assert [f.where for f in found(tmp_path, "import lib1\nlib1.f()\n")] == ["lib2.py:3"]


def test_a_function_that_calls_itself_ends(tmp_path: Path) -> None:
    script = "import os\ndef f(n):\n    g(n)\ndef g(n):\n    f(n)\n    os.environ['LOCAL_WORLD_SIZE']\nf(1)\n"
    assert [f.code for f in found(tmp_path, script)] == ["variable-not-set"]


def test_a_script_is_read_only_when_findings_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("pass\n", encoding="utf-8")
    plan = Job(command="python train.py", code=str(tmp_path)).plan()
    (tmp_path / "train.py").write_text("import os\nos.environ['RANK']\n", encoding="utf-8")
    assert len(plan.processes) == 1
    assert [f.code for f in plan.findings if f.where == "train.py:2"] == ["variable-not-set"]


def test_a_script_left_out_of_the_code_is_told_with_its_rule(tmp_path: Path) -> None:
    (tmp_path / ".amlignore").write_text("*.pyc\ntrain.py\n", encoding="utf-8")
    (finding,) = found(tmp_path, "pass\n")
    assert (finding.code, finding.level) == ("missing-script", "error")
    assert ".amlignore:2: train.py" in finding.message


def test_a_script_of_that_name_in_another_folder_is_the_hint(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "other.py").write_text("pass\n", encoding="utf-8")
    (finding,) = found(tmp_path, "pass\n", command="python other.py")
    assert finding.hint == "there is src/other.py"


def test_a_script_is_found_through_everything_that_starts_one(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text('cd sub\nexec python3 -u main.py "$@"\n', encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "main.py").write_text("import os\nos.environ['TF_CONFIG']\n", encoding="utf-8")
    for command in (
        "bash run.sh 1",
        "cd sub && python main.py",
        "cd ./sub; nohup python -X dev -W ignore main.py 2>&1 | tee log",
        "python -m sub.main",
        "torchrun --nproc-per-node=2 --rdzv-id a sub/main.py",
        "python -m torch.distributed.run --nproc_per_node 2 sub/main.py",
        "accelerate launch --multi_gpu --num_processes 2 sub/main.py",
        "deepspeed --num_gpus 2 sub/main.py",
        "uv run python sub/main.py",
        "CUDA_LAUNCH_BLOCKING=1 python sub/main.py",
        "ls && \\\n python sub/main.py",
    ):
        findings = [f for f in Job(command=command, code=str(tmp_path)).plan().findings if f.code == "variable-not-set"]
        assert [f.where for f in findings] == ["sub/main.py:2"], command


def test_words_of_a_command_are_known_as_far_as_they_are() -> None:
    text = f'a \'b c\' "$D" $E f*g {UNKNOWN}/h "i\\"j" # k\nl > m 2>&1 && n'
    first, second, third = commands(text)
    assert [word.text for word in first.words] == ["a", "b c", "$D", "$E", "f*g", f"{UNKNOWN}/h", 'i"j']
    assert [word.known for word in first.words] == [True, True, False, False, True, False, True]
    assert [word.single for word in first.words] == [True, True, True, False, False, True, True]
    assert [[word.text for word in c.words] for c in (second, third)] == [["l"], ["n"]]
    assert all(command.certain for command in (first, second, third))


@pytest.mark.parametrize(
    "text", ["if a; then b; fi", "a || b", "for i in 1 2; do b; done", "f() { b; }", "[ -n $A ] && b"]
)
def test_a_command_behind_a_branch_is_not_certain(text: str) -> None:
    assert not list(commands(text))[-1].certain


def test_the_finding_of_a_job_without_code_is_none() -> None:
    assert [f for f in Job(command="python train.py").plan().findings if f.code in CODES] == []


def test_the_same_script_is_right_in_one_world_and_wrong_in_another(tmp_path: Path) -> None:
    script = "import os\nrank = int(os.environ['RANK'])\n"
    assert found(tmp_path, script, **TORCH) == []
    for job in (ONE | {"distribution": None}, {"distribution": Mpi(process_count_per_node=2)}):
        assert [f.level for f in found(tmp_path, script, **job)] == ["error"]


def in_image(folder: Path, dockerfile: str, **files: str) -> Environment:
    """An environment that is built from a Dockerfile."""
    folder.mkdir()
    for name, text in {"Dockerfile": dockerfile, **files}.items():
        (folder / name.replace("_txt", ".txt")).write_text(text, encoding="utf-8")
    return Environment(build=Build(path=str(folder)))


@pytest.mark.parametrize(
    ("dockerfile", "names"),
    [
        ("FROM python:3.12\nRUN pip install --no-cache-dir torch==2.6.0 'timm>=1'\n", {"torch": "2.6.0", "timm": None}),
        (
            "FROM ubuntu:24.04\nRUN apt-get update && \\\n  python3 -m pip install -r /tmp/r.txt\n",
            {"numpy": "2.0", "ray": None},
        ),
        ("FROM python:3.12\nRUN uv pip install -i https://example.com/simple Tf_Models\n", {"tf-models": None}),
        ("FROM nvcr.io/nvidia/pytorch:25.01-py3\nRUN pip install timm\n", None),
        ("FROM python:3.12 AS a\nFROM scratch\n", None),
        ("FROM python:3.12\nRUN X=1 bash install.sh\n", None),
        ("FROM python:3.12\nRUN pip install -r other.txt\n", None),
    ],
)
def test_packages_of_a_dockerfile_are_known_where_it_says_all(
    tmp_path: Path, dockerfile: str, names: dict[str, str | None] | None
) -> None:
    environment = in_image(tmp_path / "image", dockerfile, r_txt="numpy==2.0  # why\nray[default]\n--pre\n")
    packages = pins_of(environment)
    assert (packages and packages.versions) == names


@pytest.mark.parametrize(
    "conda",
    ["[", "a", "dependencies: 3", "dependencies: [{pip: ['-r r.txt']}]", "null", "dependencies: [" * 3000],
)
def test_a_list_of_packages_that_is_not_one_is_unknown(tmp_path: Path, conda: str) -> None:
    (tmp_path / "conda.yaml").write_text(conda, encoding="utf-8")
    assert pins_of(Environment(image="ubuntu", conda_file=str(tmp_path / "conda.yaml"))) is None


def test_versions_that_differ_here_are_told_without_their_build() -> None:
    here = importlib.metadata.version("click")
    pinned = {"dependencies": ["pip", {"pip": [f"click=={here}", "pyyaml==0.1", "no-such-package==1"]}]}
    environment = Environment(image="ubuntu", conda_file=pinned)
    assert [(name, there) for name, _, there in other_versions(environment)] == [("pyyaml", "0.1")]
    assert str(other_versions_here(sys.executable, environment)).endswith("the job's environment pins pyyaml 0.1")
    assert other_versions_here("/usr/bin/another-python", environment) is None


def test_scripts_in_a_folder_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    script = "import torch\nimport torch.distributed as dist\ndist.init_process_group('gloo')\ntorch.save({}, 'm')\n"
    (tmp_path / "a/train.py").write_text(script)
    (tmp_path / "a/helper.py").write_text("import torch\n")
    (tmp_path / "odd.py").write_bytes(b"import torch, sys\nsys.argv\n\xff")

    score_folders(str(tmp_path))

    assert capsys.readouterr().out.splitlines()[-3:] == [
        "a/train.py: warning saved-by-every-rank: train.py:4: all ranks write this file at the same time, and its"
        " content may end up mixed",
        f"{tmp_path.name}: 2 scripts, 0 errors, 1 warnings",
        "",
    ]
