"""`Registered`: a version of a model in a workspace."""

from __future__ import annotations

from typing import NamedTuple

from azml_dist.status import RunStatus


def hint_for(run: str, status: RunStatus) -> str:
    """What to type about a run that has no model to register: it has not completed, or not yet."""
    if not status.is_final:
        return f"`azml-dist wait {run}` waits until it ends"
    return f"`azml-dist why {run}` shows why it failed, and `azml-dist list` shows other runs"


class Registered(NamedTuple):
    """A version of a model in the workspace."""

    name: str
    version: str
    type: str
    """`custom_model`, `mlflow_model` or `triton_model`."""
    path: str
    """Where its files are."""

    @property
    def reference(self) -> str:
        """How a job refers to it: `azureml:NAME:VERSION`."""
        return f"azureml:{self.name}:{self.version}"

    def to_dict(self) -> dict[str, str]:
        return {**self._asdict(), "reference": self.reference}
