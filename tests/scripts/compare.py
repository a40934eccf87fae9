"""Which job files azure-ai-ml takes and `azml-dist plan` does not, and the reverse, over all YAML of some folders.

    make compare FOLDER="FOLDER..."

Both are asked offline: azure-ai-ml to load and to validate the file, we to load and to plan it. Where they differ, and
why, is in `docs/what-azure-ai-ml-takes.md`.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.cli.argument import load_any
from azml_dist.cli.folder import not_a_job
from azml_dist.errors import JobError
from azml_dist.files.component import is_component
from azml_dist.notation.document import read_yaml

_EXAMPLES = 3


class Verdict(NamedTuple):
    """What both say about a file; None where it is taken."""

    ours: str | None
    theirs: str | None

    @property
    def kind(self) -> str:
        """Who takes it."""
        if not self.ours or not self.theirs:
            return "both take it" if self.ours == self.theirs else "we refuse" if self.ours else "azure-ai-ml refuses"
        return "both refuse"


def main(folders: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in _files(folders):
        verdict = compare(file)
        found[verdict.kind][_general(" | ".join(filter(None, verdict)))].append(file)
    for kind, reasons in found.items():
        print(f"{kind}: {sum(map(len, reasons.values()))}")
        if kind != "both take it":
            for reason, files in sorted(reasons.items(), key=lambda item: -len(item[1])):
                print(f"  {len(files):4} {reason}\n       {' '.join(files[:_EXAMPLES])}")


def compare(file: str) -> Verdict:
    """What both say about a file."""
    return Verdict(_ours(file), _theirs(file))


def _files(folders: list[str]) -> Iterator[str]:
    for folder in folders:
        for path in sorted([*Path(folder).rglob("*.yml"), *Path(folder).rglob("*.yaml")]):
            if path.is_file() and not not_a_job(str(path)):
                yield str(path)


def _ours(file: str) -> str | None:
    try:
        plan = load_any(file).plan()
    except JobError as error:
        return error.problems[0].message
    return next((finding.message for finding in plan.findings if finding.level == "error"), None)


def _theirs(file: str) -> str | None:
    from azure.ai.ml import load_component, load_job

    try:
        loaded: Any = (load_component if _is_component(file) else load_job)(file)
        found = loaded._validate() if hasattr(loaded, "_validate") else None
    except BaseException as error:  # of any kind: it has no base of its own
        messages = re.findall(r'"message": "((?:[^"\\]|\\.)*)"', str(error))
        return "; ".join(messages) or " ".join(str(error).split())
    return None if found is None or found.passed else str(found.error_messages)


def _is_component(file: str) -> bool:
    try:
        return is_component(read_yaml(file).data)
    except JobError:
        return False


def _general(reason: str) -> str:
    """A reason without the names and paths of the file it was found in."""
    text = re.sub(r"/[\w./-]+|'[^']*'|\"[^\"]*\"|`[^`]*`|\d+", "…", reason)
    return text[:300]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
