"""What `azureml-mlflow` is in a real image: MLflow's store behind `azureml://`, here by MLflow's own REST store."""

from __future__ import annotations

import os
from typing import Any


def store(store_uri: str, **_: Any) -> Any:
    """The store of a tracking URI, as the entry point `mlflow.tracking_store` beside this file promises."""
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import MlflowHostCreds

    token, entry = os.environ["MLFLOW_TRACKING_TOKEN"], os.environ.get("AZML_EMULATOR_URL")
    host = store_uri.replace("azureml://", f"{entry}/-/" if entry else "https://", 1)
    return RestStore(lambda: MlflowHostCreds(host=host, token=token))
