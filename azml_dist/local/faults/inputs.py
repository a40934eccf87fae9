"""An input that can no longer be read: its path becomes a broken link."""

from __future__ import annotations

import contextlib
import os


class Gone:
    """Break the link through which a run finds an input."""

    def __init__(self, link: str) -> None:
        self._link = link
        self._target = os.readlink(link)
        _point(link, f"{link}-was-taken-away")

    def give_back(self) -> None:
        """Make the input readable again for the next attempt."""
        with contextlib.suppress(OSError):
            _point(self._link, self._target)


def _point(link: str, target: str) -> None:
    """Change the target of a link atomically, so that readers always find a link."""
    draft = f"{link}.new"
    os.symlink(target, draft)
    os.replace(draft, link)
