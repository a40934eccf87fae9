"""The interactive services of a run, and where they are."""

from __future__ import annotations

from typing import NamedTuple


class RunService(NamedTuple):
    """A service of a run: TensorBoard, JupyterLab, VS Code or SSH."""

    type: str
    """As in the job: `tensor_board`, `jupyter_lab`, `vs_code` or `ssh`; or whatever else the service calls it."""
    url: str | None
    """Its address; None if it has none yet, or none any more."""
    status: str | None = None
    """In the service's words, such as `Running`; None if it says nothing."""
    error: str | None = None
    """Why it does not work, in the service's words."""
