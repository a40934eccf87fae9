"""Whether a request to the storage is allowed: by the account's key, by a shared access signature, or not at all.

Strings-to-sign as documented under "Authorize with Shared Key", "Create a service SAS" and "Create an account SAS".
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime, timezone
from urllib.parse import parse_qsl

from azml_dist.emulator.account import Account
from azml_dist.emulator.wire import Refusal, Request

_SIGNED = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)


def check(account: Account, request: Request, needs: str, *, on: str, skew: float = 0.0) -> None:
    """403 unless the request has the right: one of the letters `needs`, on a `b`lob, a `c`ontainer or the `s`ervice."""
    query = dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True))
    sent = request.headers.get("Authorization", "")
    if sent.startswith("SharedKey "):
        if not hmac.compare_digest(sent, f"SharedKey {account.name}:{account.sign(_shared_key(account, request))}"):
            raise _refused("The MAC signature found in the HTTP request is not the same as any computed signature.")
    elif "sig" in query:
        _check_sas(account, request, query, needs, on, skew)
    elif sent:
        raise Refusal(401, "InvalidAuthenticationInfo", "Authentication scheme is not supported.")
    else:
        raise Refusal(409, "PublicAccessNotPermitted", "Public access is not permitted on this storage account.")


def _shared_key(account: Account, request: Request) -> list[str]:
    values = [request.headers.get(name) or "" for name in _SIGNED]
    if values[2] == "0":
        values[2] = ""
    names = sorted({name.lower() for name in request.headers if name.lower().startswith("x-ms-")})
    headers = [f"{name}:{' '.join((request.headers[name] or '').split())}" for name in names]
    path, _, query = request.target.partition("?")
    parameters: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters.setdefault(name.lower(), []).append(value)
    resource = [f"/{account.name}{path}"]
    resource += [f"{name}:{','.join(sorted(found))}" for name, found in sorted(parameters.items())]
    return [request.method, *values, *headers, *resource]


def _check_sas(account: Account, request: Request, query: Mapping[str, str], needs: str, on: str, skew: float) -> None:
    if "ss" in query:
        fields, is_for = _of_an_account(account, query), query.get("srt", "")
    elif "skoid" in query:
        raise Refusal(501, "NotEmulated", "The emulator does not know user delegation SAS.")
    else:
        fields, is_for = _of_a_service(account, request, query), {"b": "o", "c": "co"}.get(query.get("sr", ""), "")
    if not hmac.compare_digest(query["sig"], account.sign(fields)):
        raise _refused("Signature did not match. String to sign used was " + " ".join(fields[:4]))
    now = datetime.now(timezone.utc).timestamp() + skew
    if now < _instant(query.get("st"), 0.0) or now > _instant(query.get("se"), 0.0):
        raise _refused(
            f"Signature not valid in the specified time frame: Start [{query.get('st')}] - Expiry [{query.get('se')}] "
            f"- Current [{datetime.fromtimestamp(now, timezone.utc):%a, %d %b %Y %H:%M:%S GMT}]"
        )
    if {"b": "o"}.get(on, on) not in is_for and not (on == "c" and query.get("sr") == "c"):
        raise Refusal(403, "AuthorizationResourceTypeMismatch", "This request is not authorized for this resource.")
    if needs and not set(needs) & set(query.get("sp", "")):
        message = "This request is not authorized to perform this operation using this permission."
        raise Refusal(403, "AuthorizationPermissionMismatch", message)


def _of_an_account(account: Account, query: Mapping[str, str]) -> list[str]:
    fields = [account.name, *(query.get(name, "") for name in ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv"))]
    return [*fields, *([query.get("ses", "")] if query.get("sv", "") >= "2020-12-06" else []), ""]


def _of_a_service(account: Account, request: Request, query: Mapping[str, str]) -> list[str]:
    """What a signature for a container or a blob is made of; the fields depend on the version."""
    path = request.path if query.get("sr") == "b" else "/" + request.path.split("/")[1]
    version = query.get("sv", "")
    start = [*(query.get(name, "") for name in ("sp", "st", "se")), f"/blob/{account.name}{path}"]
    middle = [query.get(name, "") for name in ("si", "sip", "spr", "sv")]
    if version >= "2018-11-09":
        middle += [query.get("sr", ""), ""]
    if version >= "2020-12-06":
        middle.append(query.get("ses", ""))
    return [*start, *middle, *(query.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct"))]


def _instant(stamp: str | None, otherwise: float) -> float:
    if not stamp:
        return otherwise
    try:
        found = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError as error:
        raise _refused(f"{stamp} is not a time.") from error
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def _refused(detail: str) -> Refusal:
    message = "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
    return Refusal(403, "AuthenticationFailed", f"{message}correctly including the signature. {detail}")
