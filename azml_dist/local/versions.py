"""Versions of packages here that differ from those that the job's environment pins."""

from __future__ import annotations

import os
import sys

from azml_dist.model.parts import Environment
from azml_dist.words import plural


def other_versions_here(python: str, environment: object) -> str | None:
    """A note about local packages with another version than the job's environment pins.

    Only for the Python that runs this package: another one would have to be started to be asked.
    """
    if not isinstance(environment, Environment) or not _is_this_python(python):
        return None
    from azml_dist.listed import other_versions  # a start without a definition does not wait for it

    if not (found := other_versions(environment)):
        return None
    here = ", ".join(f"{name} {version}" for name, version, _ in found[:_FEW])
    there = ", ".join(f"{name} {version}" for name, _, version in found[:_FEW])
    more = f", and {plural(len(found) - _FEW, 'package')} more" if len(found) > _FEW else ""
    return f"this run has {here}; the job's environment pins {there}{more}"


_FEW = 4
"""How many packages a note lists."""


def _is_this_python(python: str) -> bool:
    try:
        return os.path.abspath(python) == os.path.abspath(sys.executable) or os.path.samefile(python, sys.executable)
    except OSError:
        return False
