"""Microsoft's own sample jobs against the emulator: `make contract FOLDER=...`, a clone of Azure/azureml-examples.

Each command, sweep and pipeline job under `cli/jobs` is submitted by azure-ai-ml as it is. Those in `basics`, which
need neither packages nor data from elsewhere, also run. Nothing of the clone is kept; the table goes to
docs/emulator-contract.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.emulator import EmulatedWorkspace, emulated_workspace

PAGE = Path(__file__).parents[1] / "docs" / "emulator-contract.md"
SECONDS = 60
_REFERENCE = re.compile(
    r"^\s*(environment|path|component|compute|default_compute): "
    r"azureml:(?!/|AzureML-)([\w.-]+)(?:@\w+|:([\w.]+))?\s*(?:#.*)?$",
    re.MULTILINE,
)
_PATH = re.compile(r"(?<![\w:/.…])/(?:[\w.+-]+/)+[\w.+-]*")
_PLAIN = str.maketrans({"|": "/", "<": "(", ">": ")"})
_KIND = re.compile(r"^\$schema:.*/(command|sweep|pipeline)Job\.schema\.json", re.MULTILINE)


class Tried(NamedTuple):
    """A sample, and what came of it."""

    kind: str
    path: str
    came: str
    why: str


def main() -> None:
    root = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    files = list(samples(root))
    if not files:
        sys.exit(
            f"error: {root} has no job files under cli/jobs\nhint: clone Azure/azureml-examples, and name the folder"
        )
    tried = [one for kind, path in files for one in [_tried(kind, path, root)] if one]
    PAGE.write_text(page(tried), encoding="utf-8")
    print(f"{len(tried)} samples; {PAGE} is written")


def samples(root: Path) -> Iterator[tuple[str, Path]]:
    """The job files of the CLI's samples, with their kind."""
    for path in sorted((root / "cli" / "jobs").rglob("*.y*ml")):
        if found := _KIND.search(path.read_text(encoding="utf-8", errors="replace")):
            yield found[1], path


def _tried(kind: str, path: Path, root: Path) -> Tried:
    shown = path.relative_to(root / "cli" / "jobs").as_posix()
    with tempfile.TemporaryDirectory() as folder, emulated_workspace(Path(folder)) as here:
        here.knobs.run_jobs = shown.startswith("basics/")
        came, why = _came_of(path, here)
        print(f"{came:24} {shown}  {why}", flush=True)
        return Tried(kind, shown, came, why)


def _came_of(path: Path, here: EmulatedWorkspace) -> tuple[str, str]:
    """What the client and the emulator make of a sample."""
    from azure.ai.ml import load_job

    try:
        job = load_job(path)
    except Exception as error:
        return "not loaded", _line(error)
    _provide(path, here)
    try:
        submitted = here.submit(job)
    except Exception as error:
        if here.emulator.problems:
            return "not played", _line(here.emulator.problems[0])
        return "refused", _line(error)
    if not here.knobs.run_jobs:
        return "submitted", ""
    status = submitted.wait(SECONDS)
    return ("ran", "") if status == "Completed" else (f"ran: {status}", _line((submitted.error or {}).get("error")))


def _provide(path: Path, here: EmulatedWorkspace) -> None:
    """What the samples expect of a workspace, under the names that they use: their README says how to make it."""
    from azure.ai.ml import load_component

    from azml_dist.emulator import Cluster

    texts = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(path.parent.rglob("*.y*ml"))]
    for field, name, version in _REFERENCE.findall("\n".join(texts)):
        if field == "environment":
            here.emulator.assets.add_environment(name, version or "1")
        elif field == "path":
            here.emulator.assets.add_data(name, version or "1", {"data.csv": b"a,b\n1,2\n"})
        elif field == "component":
            for file, text in zip(sorted(path.parent.rglob("*.y*ml")), texts, strict=True):
                if re.search(rf"^name: {re.escape(name)}$", text, re.MULTILINE):
                    here.ml_client.components.create_or_update(load_component(file))
        else:
            here.workspace.computes.setdefault(name, Cluster())


def _line(error: Any) -> str:
    text = error.get("message", "") if isinstance(error, dict) else str(error)
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    text = re.sub(r"/subscriptions/\S+/workspaces/[^/\s]+", "…", " ".join(text.split()))
    text = re.sub(r" Error: .*|#\d+ ", "", text)  # what a script printed has paths of one machine
    return _PATH.sub("…", text)[:150].translate(_PLAIN)


def page(tried: list[Tried]) -> str:
    """The page with the table."""
    from azure.ai.ml import VERSION

    lines = [
        "# Microsoft's samples against the emulator",
        "",
        f"What azure-ai-ml {VERSION} and the emulator make of each command, sweep and pipeline job under",
        "`cli/jobs` of [azureml-examples](https://github.com/Azure/azureml-examples), as it is, in a workspace that",
        "has the environments, data, components and clusters that the files name. Samples in `basics` also ran; the",
        "others were only submitted, since they need packages, data or GPUs. Written by `make contract FOLDER=...`.",
        "",
        "- *ran*: it was submitted, became processes, and they ended well.",
        "- *submitted*: the client sent it, and every request was one that the emulator plays and accepts.",
        "- *not played*: it needs a route or a kind of job that answers 501 here.",
        "- *refused*: it refers to something that a new workspace does not have, such as registered data.",
        "- *not loaded*: azure-ai-ml itself does not accept the file.",
        "",
    ]
    kinds = sorted({one.kind for one in tried})
    cames = sorted({one.came for one in tried}, key=lambda came: (not came.startswith("ran"), came))
    count = Counter((one.kind, one.came) for one in tried)
    lines += [f"| kind | {' | '.join(cames)} |", f"|---|{'---|' * len(cames)}"]
    lines += [f"| {kind} | {' | '.join(str(count[kind, came]) for came in cames)} |" for kind in kinds]
    lines += ["", "| sample | came of it | why |", "|---|---|---|"]
    lines += [f"| `{one.path}` | {one.came} | {one.why} |" for one in tried]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
