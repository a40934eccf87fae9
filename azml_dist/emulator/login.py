"""The login host, for clients that get their token from a service principal in environment variables.

AZURE_TENANT_ID=<workspace.tenant_id> AZURE_CLIENT_ID=any AZURE_CLIENT_SECRET=any
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs

from azml_dist.emulator.routing import Host, route
from azml_dist.emulator.state import ML_TOKEN, Workspace
from azml_dist.emulator.wire import Reply, Request

_LOGIN = f"https://{Host.LOGIN.value}"


class LoginRoutes:
    """Microsoft Entra ID, for one tenant."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.refusal: str | None = None
        """The answer to every login, such as `AADSTS7000215: Invalid client secret provided.`"""

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
            return _refused(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
        if self.refusal:
            return _refused(401, "invalid_client", self.refusal)
        wanted = self._workspace.client_secret
        sent = {name: values[0] for name, values in parse_qs(request.body.decode(errors="replace")).items()}
        if wanted and not hmac.compare_digest(sent.get("client_secret", "").encode(), wanted.encode()):
            return _refused(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        if "ml.azure.com" in sent.get("scope", ""):
            return Reply(body={"token_type": "Bearer", "expires_in": 3600, "access_token": ML_TOKEN})
        token, seconds = self._workspace.issue_token()
        return Reply(body={"token_type": "Bearer", "expires_in": seconds, "access_token": token})


def _refused(status: int, error: str, text: str) -> Reply:
    """A refusal as Entra words it (OAuth 2.0, RFC 6749)."""
    code = int(text.removeprefix("AADSTS").partition(":")[0])
    return Reply(status, {"error": error, "error_description": text, "error_codes": [code]})
