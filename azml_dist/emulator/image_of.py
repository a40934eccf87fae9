"""What the image of an emulated job brings: variables, and the part of MLflow that knows `azureml:`."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE = Path(__file__).parent / "image"
"""What is installed in the emulated image and not here."""
ENTRY = "AZML_EMULATOR_URL"
"""Where a job finds the emulator without a proxy, so that its other requests go where they always go."""


def image_of(port: int) -> dict[str, str]:
    """The variables that the image of every job sets."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(IMAGE), os.environ.get("PYTHONPATH", "")])),
        ENTRY: f"http://127.0.0.1:{port}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
