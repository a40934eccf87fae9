"""Checks addresses from the service or a job: a login is sent only to Azure's own hosts, over TLS."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LABELS = r"https://(?:[a-z0-9-]+\.)*"
_END = r"(?::443)?(?=[/?]|\Z)"
"""The end of the host, however a URL is parsed: no `@`, no backslash, no other port."""

_STORAGE = {
    "AzureCloud": (r"blob\.core\.windows\.net", r"blob\.storage\.azure\.net"),
    "AzureUSGovernment": (r"blob\.core\.usgovcloudapi\.net",),
    "AzureChinaCloud": (r"blob\.core\.chinacloudapi\.cn",),
}
"""Endpoints of Blob Storage ("Storage account overview"); the second is for accounts with a DNS zone, such as `z01`."""
_SERVICES = {
    "AzureCloud": (r"api\.azureml\.ms",),
    "AzureUSGovernment": (r"api\.ml\.azure\.us",),
    "AzureChinaCloud": (r"api\.ml\.azure\.cn",),
}
"""The regional APIs ("Configure inbound and outbound network traffic")."""
_BLOB = re.compile(
    r"(?i)(?P<scheme>https|wasbs|abfss)://(?:(?P<container>[\w$-]+)@)?"
    r"(?P<account>[a-z0-9-]+(?:\.z\d+)?)\.(?:blob|dfs)\.(?P<endpoint>[a-z0-9.-]+)(?::443)?/(?P<path>[^?#]*)"
)
_DATASTORE = re.compile(r"(?i)azureml:/.*?/?datastores/(?P<store>[\w-]+)/(?:paths/)?(?P<path>.*)", re.DOTALL)


def is_https(url: str) -> bool:
    return re.match(r"(?i)https://[a-z0-9.-]+(?::\d+)?(?=[/?]|\Z)", url) is not None


def is_storage(url: str, cloud: str) -> bool:
    """Whether an address belongs to the cloud's Blob Storage, so that the login may be sent to it."""
    return _is_of(url, _STORAGE, cloud)


def is_service(url: str, cloud: str) -> bool:
    """Whether an address belongs to Azure ML in that cloud."""
    return _is_of(url, _SERVICES, cloud)


def is_signed(url: str) -> bool:
    """Whether an address contains a signature (SAS), so that it needs no login."""
    query = url.partition("#")[0].partition("?")[2]
    return re.search(r"(?:^|&)sig=[^&]", query) is not None


def in_a_datastore(address: str) -> tuple[str, str] | None:
    """Datastore and path of an `azureml://…` address."""
    found = _DATASTORE.fullmatch(address)
    return (found["store"], found["path"]) if found else None


def in_a_container(address: str) -> tuple[str, str] | None:
    """For an address outside the datastores: the https address of its blob container, and the path in it."""
    if not (found := _BLOB.fullmatch(address)):
        return None
    container, path = found["container"], found["path"]
    if container is None:
        container, _, path = path.partition("/")
    return f"https://{found['account']}.blob.{found['endpoint']}/{container}", path


def _is_of(url: str, endpoints: Mapping[str, tuple[str, ...]], cloud: str) -> bool:
    # For a cloud that is not in the table, the host cannot be checked: only TLS is required.
    known = endpoints.get(cloud)
    if known is None:
        return is_https(url)
    return re.match(rf"(?i){_LABELS}(?:{'|'.join(known)}){_END}", url) is not None
