"""The login host, for clients that get their token from a service principal in environment variables.

AZURE_TENANT_ID=<workspace.tenant_id> AZURE_CLIENT_ID=any AZURE_CLIENT_SECRET=any
"""

from __future__ import annotations

from .routing import Host, route
from .state import Workspace
from .wire import Refusal, Reply, Request

_LOGIN = f"https://{Host.LOGIN.value}"


class LoginRoutes:
    """Microsoft Entra ID, for one tenant."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @route("login.discovery", "GET", Host.LOGIN, "/common/discovery/instance", anonymous=True)
    def discovery(self, request: Request) -> Reply:
        """Which hosts are the same authority."""
        alias = {"preferred_network": Host.LOGIN.value, "preferred_cache": "login.windows.net"}
        endpoint = f"{_LOGIN}/{self._workspace.tenant_id}/v2.0/.well-known/openid-configuration"
        metadata = [{**alias, "aliases": [Host.LOGIN.value]}]
        return Reply(body={"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": metadata})

    @route("login.openid", "GET", Host.LOGIN, "/{tenant}/v2.0/.well-known/openid-configuration", anonymous=True)
    def openid(self, request: Request, tenant: str) -> Reply:
        """Where tokens come from."""
        base = f"{_LOGIN}/{tenant}"
        return Reply(
            body={
                "issuer": f"{base}/v2.0",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            }
        )

    @route("login.token", "POST", Host.LOGIN, "/{tenant}/oauth2/v2.0/token", anonymous=True)
    def token(self, request: Request, tenant: str) -> Reply:
        """The token that the workspace takes."""
        if tenant != self._workspace.tenant_id:
            raise Refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
        return Reply(body={"token_type": "Bearer", "expires_in": 3600, "access_token": self._workspace.token})
