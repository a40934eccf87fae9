"""A credential that needs no login."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .state import Workspace

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
        return AccessToken(self._workspace.token, int(time.time()) + 3600)
