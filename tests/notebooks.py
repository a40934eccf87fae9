"""Executes the notebooks of the samples, each in a copy of the repository, against the emulated workspace.

`make notebooks` writes their outputs anew: in one form, so that nothing of the machine that ran them is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from submitting import REPOSITORY, logged_in, repository_copy

from azml_dist.emulator import Emulator, Job

FOLDER = REPOSITORY / "samples" / "notebooks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.ipynb"))
IMAGE = REPOSITORY / "azml_dist" / "emulator" / "image"
"""What is installed in the emulated image and not here."""
WAIT = {"01_first_run", "04_when_it_fails"}
"""Notebooks that wait for what they submit. For the others, the emulated cluster is busy."""
SECONDS = 240

RUN_NAME = re.compile(r"\b([a-z0-9][a-z0-9-]*-)([0-9a-f]{6}|[0-9a-f]{10})(?=\b|_)")
EXAMPLES = {
    "emulated-workspace": "my-workspace",
    "emulated-group": "my-group",
    "5ca1ab1e-0000-4000-8000-000000000001": "00000000-0000-0000-0000-000000000000",
}
"""What the notebooks show for the emulated workspace."""


def executed(name: str, emulator: Emulator, folder: Path) -> Any:
    """A notebook with the outputs of a fresh run, whose first error ends it, unless a cell is there to fail."""
    emulator.jobs.on_submit = lambda job: start(job, emulator) if name in WAIT else job.advance("Queued")
    home = folder / "home"
    home.mkdir()
    place = repository_copy(home / "azml-dist") / "samples" / "notebooks"
    env = {**os.environ, **logged_in(emulator, folder / "bin"), "CUDA_VISIBLE_DEVICES": "", "HOME": str(home)}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    env["MLFLOW_DISABLE_TELEMETRY"] = "true"
    env.pop("AZML_DIST_ROOT", None)
    argv = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", f"{name}.ipynb"]
    ended = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    return tidied(json.loads((place / f"{name}.ipynb").read_text()), name, home)


def start(job: Job, emulator: Emulator) -> None:
    """Run a submitted job as the service does."""
    passed_on = ("HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")
    env = {name: os.environ[name] for name in passed_on} | {
        "PYTHONPATH": str(IMAGE),
        "CUDA_VISIBLE_DEVICES": "",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    emulator.start(job.name, env=env)


def tidied(notebook: Any, name: str, home: Path) -> Any:
    """The notebook as it is kept: outputs in one form, and nothing that changes from one machine to the next."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    names: dict[str, str] = {}
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"{name[:2]}-{number:02d}"
        cell["metadata"] = {"tags": tags} if (tags := cell["metadata"].get("tags")) else {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [in_one_form(output, name, home, names) for output in merged(cell["outputs"])]
    return notebook


def merged(outputs: list[Any]) -> list[Any]:
    """Pieces of one stream put together: how it is cut depends on when the kernel was looked at."""
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] += output["text"]
        else:
            found.append(output)
    return found


def in_one_form(value: Any, notebook: str, home: Path, names: dict[str, str]) -> Any:
    """Every text below a value, as the reader's own machine and workspace would show it."""
    if isinstance(value, list):
        return [in_one_form(one, notebook, home, names) for one in value]
    if isinstance(value, dict):
        return {k: v if k == "image/png" else in_one_form(v, notebook, home, names) for k, v in value.items()}
    if not isinstance(value, str):
        return value
    value = value.replace(str(home), "/home/you")
    for ours, example in EXAMPLES.items():
        value = value.replace(ours, example)
    value = re.sub(r"\x1b\[[\d;]*m", "", value)
    value = re.sub(r"/\S*/emulated-job-\w+/cap/", "/mnt/azureml/cr/j/JOB/cap/data-capability/wd/", value)
    value = re.sub(r"/\S*/emulated-job-\w+/node_\d+/wd/", "/mnt/azureml/cr/j/JOB/exe/wd/", value)
    value = re.sub(r"/cache/code/[0-9a-f]{24}/", "/cache/code/CODE/", value)
    # How long it took where nobody has a GPU, and beside what else, says nothing to a reader.
    value = re.sub(r"\b(run \S+: \w+) in \d+(?:\.\d+)? (?:s|min)\b", r"\1", value)
    value = re.sub(r" · took \d+ (s|min)(?= · )| · (\d+\.\d s|\d+ min)(?=</p>)", "", value)

    def named(found: re.Match[str]) -> str:
        fresh = hashlib.sha256(f"{notebook} {len(names)}".encode()).hexdigest()[: len(found[2])]
        return found[1] + names.setdefault(found[0], fresh)

    return RUN_NAME.sub(named, value)


def written(notebook: Any) -> str:
    """A notebook as nbformat writes it."""
    import nbformat

    return str(nbformat.writes(nbformat.from_dict(notebook))) + "\n"  # type: ignore[no-untyped-call]


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        with TemporaryDirectory() as folder, Emulator() as emulator:
            os.environ.update(emulator.environ(Path(folder, "ca.pem")))
            notebook = executed(name, emulator, Path(folder))
            emulator.assert_clean()
        (FOLDER / f"{name}.ipynb").write_text(written(notebook), encoding="utf-8")
        print(f"{name}: written")


if __name__ == "__main__":
    main()
