"""The kinds of values that the fields of a job take, each with its check and its words when the check fails."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PlainValidator, WrapValidator

from azml_dist.model import Frozen, nearest_or_all, shown, wrong

V = TypeVar("V")

_REMOTE = re.compile(r"(?i)[a-z][a-z0-9+.-]+://|azureml:|https?:|wasbs?:|\$\{\{")
_ASSET = re.compile(r"(?:azureml:)?([\w.-]+)(?:[:@][\w.-]+)?")
_ONE_EXPRESSION = re.compile(r"\$\{\{\s*[\w.-]+\s*\}\}")
_ARM_ID = re.compile(r"(?i)(?:azureml:)?/subscriptions/[^\s]+|azureml://[^\s]+")


def is_remote(path: str) -> bool:
    """Whether a path names something in Azure or on the web, not a file on this machine."""
    return _REMOTE.match(path) is not None


def also(*names: str) -> Any:
    """Other names that a field is accepted by; the first is its own."""
    return Field(validation_alias=AliasChoices(*names))


def any_case(value: Any) -> Any:
    """`PyTorch`, `pytorch` and `PYTORCH` are one word, as for azure-ai-ml."""
    return value.lower() if isinstance(value, str) else value


def one_of(kinds: Mapping[str, type], what: str) -> Callable[[Any], Any]:
    """Checks that a mapping says by its `type` which of the kinds it is."""

    def check(value: Any) -> Any:
        if value is None or isinstance(value, tuple(kinds.values())):
            return value
        names = list(kinds)
        if not isinstance(value, Mapping):
            examples = ", ".join(f"{kind.__name__}(…)" for kind in kinds.values())
            raise wrong(f"{shown(value)} is not a {what}", f"write {examples}, or a mapping with `type: {names[0]}`")
        if "type" not in value:
            raise wrong(f"`type` of the {what} is missing", f"one of {', '.join(names)}")
        if any_case(value["type"]) not in kinds:
            raise wrong(
                f"{shown(value['type'])} is not a {what} that Azure ML knows", nearest_or_all(value["type"], names)
            )
        return value

    return check


def of_azure(value: Any) -> Any:
    """An object of azure-ai-ml as the fields that it holds; what it has made up, None or 0, is not given."""
    if not type(value).__module__.startswith("azure.ai.ml."):
        return value
    fields = {name.lstrip("_"): field for name, field in vars(value).items()}
    return {name: field for name, field in fields.items() if field is not None}


def kind_of(kinds: Mapping[str, type]) -> Callable[[Any], str]:
    """The tag of the union's member that a checked value belongs to."""

    def tag(value: Any) -> str:
        kind = kinds[any_case(value["type"])] if isinstance(value, Mapping) else type(value)
        return f"<{kind.__name__}>"

    return tag


def named(pattern: str, words: str) -> Any:
    """Text that must match a pattern, described in words when it does not."""
    regex = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not regex.fullmatch(value):
            raise wrong(f"{shown(value)} is not possible: {words}")
        return value

    return AfterValidator(check)


class OpenCount(int):
    """A count that is not known yet: an expression, as a step of a pipeline has it. It counts as 1 until then."""

    text: str

    def __new__(cls, text: str) -> OpenCount:
        count = super().__new__(cls, 1)
        count.text = text
        return count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenCount) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return repr(self.text)

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenCount, (self.text,)


class ExistingCommand(str):
    """A command that stands in a file or in an object of azure-ai-ml, and that Azure ML takes as it is.

    What looks wrong in it, and may be meant, is a finding and no error.
    """


class ComponentCommand(ExistingCommand):
    """A component's command: what stands in `$[[ ]]` is left out where an input in it has no value."""


def _open_count(value: Any, handler: Callable[[Any], int]) -> int:
    if isinstance(value, OpenCount):
        return value
    if isinstance(value, str) and _ONE_EXPRESSION.fullmatch(value.strip()):
        return OpenCount(value.strip())
    return handler(value)


def _count(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise wrong(f"{shown(value)} is not a whole number")
    return value


def _printable(value: str) -> str:
    if "\0" in value:
        raise wrong("a NUL character cannot be part of it")
    return value


def _literal(value: Any) -> str | int | float | bool:
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"{value} is no number to azure-ai-ml", f'put it in quotes: "{value}"')
    if isinstance(value, bool | int | float):
        return value
    if value is None:
        raise wrong("it has no value", 'give it one, or "" for an empty text')
    hint = f'put it in quotes: "{value}"' if not isinstance(value, Mapping | Sequence) else None
    raise wrong(f"{shown(value)} is neither text, a number, true or false, nor an Input", hint)


def _words(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        text = _printable(value)
        if not text.strip():
            raise wrong("it is empty")
        return text
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise wrong(f"{shown(value)} is neither text nor a list of texts")
    if not value:
        raise wrong("it is an empty list")
    for i, word in enumerate(value):
        if not isinstance(word, str):
            raise wrong(f"element {i} of the list, {shown(word)}, is not text", f'put it in quotes: "{word}"')
        _printable(word)
    return tuple(value)


def _path(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value == "":
        raise wrong("it is empty", "write `.` for the current folder")
    return value


def _code(value: str) -> str:
    if value.startswith("git+"):
        raise wrong(f"{shown(value)}: Azure ML takes no git address as code", "clone it, and give the folder")
    return value


def _variable(value: Any) -> Any:
    # As Python writes it; a value from YAML comes here as the text that stands in the file.
    return str(value) if isinstance(value, bool | int | float) else value


def _reference(value: Any) -> Any:
    """`NAME@LABEL`, `NAME:VERSION`, with `azureml:` or without; `azureml://registries/…`; or an ARM id."""
    if not isinstance(value, str):
        raise wrong(f"{shown(value)} is neither an Environment nor a reference", 'such as "azureml:NAME@latest"')
    if value.startswith("file:"):
        raise wrong(f"{shown(value)} is a file", "load it: `Environment.load(path)`")
    if _ARM_ID.fullmatch(value):
        return value
    if not _ASSET.fullmatch(value):
        raise wrong(
            f"{shown(value)} is not the name of an environment",
            'a Docker image is `Environment(image=…)`; a name is "azureml:NAME@latest" or "azureml:NAME:VERSION"',
        )
    return value if value.startswith("azureml:") else f"azureml:{value}"


def identity_type(value: Any) -> Any:
    """`Managed`, `managed_identity`, `AMLToken`, `UserIdentity`: azure-ai-ml takes any of these spellings."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", value).lower()
    return "managed" if text == "managed_identity" else text


def _compute(value: Any) -> Any:
    return value.removeprefix("azureml:") if isinstance(value, str) else value


frozen = AfterValidator(Frozen)
_AS_TEXT = BeforeValidator(_variable, json_schema_input_type=str | int | float | bool)

Count = Annotated[int, Field(ge=1), BeforeValidator(_count)]
_CountSchema = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^\$\{\{.+\}\}$")]
CountOrExpression = Annotated[Count, WrapValidator(_open_count, json_schema_input_type=_CountSchema)]
NotNegative = Annotated[int, Field(ge=0), BeforeValidator(_count)]
Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_count)]
Text = Annotated[str, AfterValidator(_printable)]
Words = Annotated[str | list[str] | tuple[str, ...], PlainValidator(_words, json_schema_input_type=str | list[str])]
Value = Annotated[str | int | float | bool, PlainValidator(_literal, json_schema_input_type=str | int | float | bool)]
LocalPath = Annotated[str, BeforeValidator(_path)]
CodePath = Annotated[str, BeforeValidator(_path), AfterValidator(_code)]
Reference = Annotated[str, PlainValidator(_reference, json_schema_input_type=str)]
Compute = Annotated[str, BeforeValidator(_compute), named(r"\S+", "a compute has a name without spaces")]
VariableValue = Annotated[str, _AS_TEXT, AfterValidator(_printable)]

_AZURE_NAME = "1 to {} letters, digits, `-` and `_`, the first a letter or a digit"
JobName = Annotated[str, named(r"[A-Za-z0-9][\w-]{0,254}", _AZURE_NAME.format(255))]
ExperimentName = Annotated[str, named(r"[A-Za-z0-9][\w-]{0,255}", _AZURE_NAME.format(256))]
AssetName = Annotated[str, named(r"[\w-]{1,255}", "1 to 255 letters, digits, `-` and `_`")]
PortName = Annotated[str, named(r"[A-Za-z_]\w*", "letters, digits and `_`, not starting with a digit")]
VariableName = Annotated[
    str, named(r"[A-Za-z_]\w*", "a variable has letters, digits and `_`, not starting with a digit")
]
ShmSize = Annotated[str, named(r"[1-9]\d*[bkmgBKMG]", "a whole number and one of b, k, m, g, as in `16g`")]
Version = Annotated[str, _AS_TEXT, named(r"[\w.-]{1,255}", "letters, digits, `.`, `-` and `_`")]
Tags = Annotated[Mapping[str, Annotated[str, _AS_TEXT] | None], frozen]
