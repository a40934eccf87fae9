"""azure-ai-ml, imported once and quietly."""

from __future__ import annotations

import logging
import threading

from azml_dist.home import own_folder

_import_lock = threading.Lock()


def import_sdk() -> None:
    """Import azure-ai-ml without the output that it and its dependencies produce meanwhile."""
    import warnings

    own_folder()  # azure-ai-ml needs a home folder while it is imported
    with _import_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import azure.ai.ml
        import azure.ai.ml.entities  # noqa: F401
    # For a response that is not JSON it logs a traceback, which Python prints if logging is not configured.
    if not (logger := logging.getLogger("azure.ai.ml._restclient")).handlers:
        logger.addHandler(logging.NullHandler())
