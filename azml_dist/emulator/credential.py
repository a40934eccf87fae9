"""A credential that needs no login."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from azml_dist.emulator.state import ML_TOKEN, Workspace

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken


class StaticToken:
    """Hands out the token that the workspace takes at that moment; `asked` counts how often."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.asked = 0

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """The token, for whatever scope."""
        from azure.core.credentials import AccessToken

        self.asked += 1
        token, seconds = self._workspace.issue_token()
        return AccessToken(token, int(time.time()) + seconds)


class TokenOfEachScope(StaticToken):
    """Gives azure-ai-ml the token of Azure ML's own audience too, which it sends along with a pipeline."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        token = super().get_token(*scopes, **options)
        return token._replace(token=ML_TOKEN) if "https://ml.azure.com/.default" in scopes else token
