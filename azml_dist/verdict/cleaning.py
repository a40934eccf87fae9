"""Removes secrets from everything that is to be shown to others: from texts, and from JSON values."""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from azml_dist.verdict.hidden import hide, secret_values

SHOWN = "***"
VALUES = "secret values of variables and inputs"
MAIL = "mail addresses"
TOKENS = "tokens, keys, signatures and passwords"
BLOBS = "long texts without a space, which may be keys"
_SHORTEST, _LONGEST = 4, 400
"""Characters of a value that is looked for, and of a word that is shown: a longer one says nothing to people."""
_MAIL = re.compile(r"(?<![\w.+/:-])(?!git@)[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_LONG = re.compile(rf"[\w+/=-]{{{_LONGEST},}}")
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?:(?!-----)[\s\S]){0,20000}-----END [A-Z ]*PRIVATE KEY-----"
    r"|[\w+/=\s\\]{0,20000})"
)
_KEY_LINES = re.compile(r"^(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9+/]{60,76}={0,2}[ \r]*$", re.MULTILINE)
"""Lines of a key whose first line is somewhere else."""
_USER = re.compile(r"(?i)(?<=https://)[^\s/@:]{8,}(?=@)")
_VARIABLES = frozenset(["environmentvariables", "environment_variables", "env"])
"""Names under which JSON values have environment variables, in lower case."""
_PACKAGES = "packages"
"""Under which versions of packages are, whose names, such as `asttokens`, say nothing about them."""
_RANDOM = re.compile(r"(?=[\w+/=.~-]{16,}\Z).*?[A-Za-z0-9+/=]{12}.*")
_PATH = re.compile(r"^[./~]|/.*/|^[\w-]+(?:\.[\w-]+)+$")


class Cleaner:
    """Removes the given secrets, and all that looks like one; counts what it has removed."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        found = {form for secret in secrets for form in _forms(secret)}
        self._secrets = sorted(found, key=len, reverse=True)
        self.removed: Counter[str] = Counter()
        """How many there were of each kind."""

    def text(self, text: str) -> str:
        """The text without secrets. Lines stay lines."""
        for secret in self._secrets:
            if secret in text:
                self.removed[VALUES] += text.count(secret)
                text = text.replace(secret, SHOWN + "\n" * secret.count("\n"))
        for pattern, kind in ((_PEM, TOKENS), (_KEY_LINES, TOKENS), (_LONG, BLOBS), (_USER, TOKENS), (_MAIL, MAIL)):
            text, count = pattern.subn(lambda found: SHOWN + "\n" * found[0].count("\n"), text)
            self.removed[kind] += count
        before = text.count(SHOWN)
        text = hide(text)
        self.removed[TOKENS] += max(0, text.count(SHOWN) - before)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value without secrets, in texts and under names that say so; NaN, which JSON lacks, is null."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._named(str(name), one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def variables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Environment variables. Of those that may have been taken from somebody's environment, only the names."""
        return {name: self._variable(name, value) for name, value in variables.items()}

    def _named(self, name: str, value: Any) -> Any:
        if name.lower() in _VARIABLES and isinstance(value, Mapping):
            return self.variables(value)
        if name == _PACKAGES and isinstance(value, Mapping):
            return {package: self.value(version) for package, version in value.items()}
        if isinstance(value, str) and name.lower() not in ("key", "keys") and secret_values({name: value}):
            return self._hidden(value)
        return self.value(value)

    def _variable(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and (secret_values({name: value}) or looks_random(value)):
            return self._hidden(value)
        return self.value(value)

    def _hidden(self, value: str) -> str:
        if SHOWN not in value and not value.startswith("<"):
            self.removed[VALUES] += 1
        return value if value.startswith("<") else SHOWN


def looks_random(value: str) -> bool:
    """Whether a value looks as if a generator had made it: long, letters and digits mixed, and no path or version."""
    if not _RANDOM.fullmatch(value) or _PATH.search(value):
        return False
    digits = sum(letter.isdigit() for letter in value)
    counts = Counter(value).values()
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return digits >= 3 and len(value) - digits >= 3 and entropy > 3.5


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may appear: as it is, line by line, quoted for a URL or JSON, in base64."""
    if len(secret) < _SHORTEST:
        return
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield from (line for line in secret.splitlines() if len(line) >= 2 * _SHORTEST)
    if len(secret) >= 2 * _SHORTEST:
        yield base64.b64encode(secret.encode(errors="surrogateescape")).decode().rstrip("=")
