"""Prints constraints by which what pyproject.toml requires is installed in the lowest version that it allows.

All else has the version of constraints.txt, but for what the lowest versions do not go with.
"""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
FOLLOW = re.compile(
    r"pydantic-core|(opentelemetry|azure-monitor|azure-core-tracing)-.*|asgiref|importlib-metadata|psutil|wrapt"
)
"""What the required packages themselves ask for in versions of their own."""


def lowest() -> dict[str, str]:
    """The lowest version of each requirement."""
    required = [one for one in map(Requirement, requires("azml-dist") or []) if one.marker is None]
    return {one.name: spec.version for one in required for spec in one.specifier if spec.operator == ">="}


def others() -> list[str]:
    """The lines of constraints.txt for all else."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {line: Requirement(line).name for line in lines if line and not line.startswith("#")}
    return [line for line, name in names.items() if name not in lowest() and not FOLLOW.fullmatch(name)]


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in lowest().items()), *others(), sep="\n")
