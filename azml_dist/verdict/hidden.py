"""Removes secrets from what a verdict shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SHOWN = "***"
_WORDS = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token(?!i[sz])|api[-_]?key|access[-_]?key|account[-_]?key|credential"
    r"|shared[-_]?access[-_]?(?:key|signature)|client[-_]?secret|private[-_]?key"
)
_PATTERNS = (
    # In a URL: user and password, and secrets in a SAS or a query.
    (re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"), _SHOWN),
    (re.compile(r"(?i)([?&;](?:sig|sv|se|sr|sp|code|key|token|access_token|api[-_]?key)=)[^\s&;'\"]+"), rf"\1{_SHOWN}"),
    (re.compile(r"(?i)\b(sig=)[\w%+/=-]{16,}"), rf"\1{_SHOWN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {_SHOWN}"),
    (
        re.compile(
            rf"(?i)(?<![a-z])([\w-]*(?:{_WORDS})['\"]?\s*(?:=|:|\s(?=\S*\d))\s*['\"]?)(?!\s)[^\s'\",;&)}}\]]{{4,}}"
        ),
        rf"\1{_SHOWN}",
    ),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), _SHOWN),
    (
        # Tokens of the Hugging Face Hub and of npm have no further `_`: `hf_hub_download` is a function.
        re.compile(
            r"\b(?:(?:hf_|npm_)[A-Za-z0-9]{12,}|(?:gh[pos]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA|ASIA|dapi|pypi-)[\w-]{12,})"
        ),
        _SHOWN,
    ),
    (re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{86}==(?![\w=])"), _SHOWN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL), _SHOWN),
)
_SECRET_NAME = re.compile(rf"(?i){_WORDS}|(?:^|_)(?:key|sas|auth|pat|dsn|conn\w*str\w*)(?:_|$)")
_PLAIN = re.compile(r"(?i).{0,3}|true|false|none|null|auto|https?://[^?@]*")
_SHORTEST = 4
"""The minimum length of a value to hide: shorter ones appear everywhere."""


def secret_values(variables: Mapping[str, str]) -> list[str]:
    """The values of environment variables whose names say that they are secret."""
    return [value for name, value in variables.items() if is_secret(name, value)]


def is_secret(name: str, value: str) -> bool:
    """Whether the name of a variable says that its value is secret."""
    return _SECRET_NAME.search(name) is not None and not _is_plain(name, value)


def masked(name: str, value: str) -> str:
    """The value of an input, without what must not be shown."""
    return _SHOWN if is_secret(name, value) else hide(value)


def _is_plain(name: str, value: str) -> bool:
    """Whether a value is no secret, whatever the name says: `TOKENIZERS_PARALLELISM=false`, `MAX_TOKENS=4096`."""
    return bool(_PLAIN.fullmatch(value)) or ("TOKENS" in name.upper() and value.isdigit())


def hide(text: str, secrets: Sequence[str] = ()) -> str:
    """The text without the given secrets, and without anything that looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _SHOWN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
