"""The types of values that the fields of a job accept, each with its check and the message if the check fails."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PlainValidator, WrapValidator

from azml_dist.model.base import Frozen, wrong
from azml_dist.notation.expressions import ONE_EXPRESSION, OpenCount
from azml_dist.words import nearest_or_all, shown

V = TypeVar("V")
_MOST_BITS = 1024
"""Of a whole number; anything longer is a string that lacks its quotes, such as a checksum."""

_ASSET = re.compile(r"(?:azureml:)?([\w.-]+)(?:[:@][\w.-]+)?")
_ARM_ID = re.compile(r"(?i)(?:azureml:)?/subscriptions/[^\s]+|azureml://[^\s]+")


def also(*names: str) -> Any:
    """Other names that a field accepts; the first is its own."""
    return Field(validation_alias=AliasChoices(*names))


def any_case(value: Any) -> Any:
    """`PyTorch`, `pytorch` and `PYTORCH` are the same word, as in azure-ai-ml."""
    return value.lower() if isinstance(value, str) else value


AnyCase = BeforeValidator(any_case)
"""Marks a field that accepts its words in upper or lower case."""


def one_of(kinds: Mapping[str, type], what: str) -> Callable[[Any], Any]:
    """Checks that the `type` of a mapping is one of the kinds."""

    def check(value: Any) -> Any:
        if value is None or isinstance(value, tuple(kinds.values())):
            return value
        names = list(kinds)
        if not isinstance(value, Mapping):
            if isinstance(value, str) and (kind := any_case(value)) in kinds:
                set_it = f", or `--set {what}.type={kind}`" if what == "distribution" else ""
                raise wrong(f"{shown(value)} is only the type of a {what}", f"write `type: {kind}` below it{set_it}")
            examples = ", ".join(f"{kind.__name__}(…)" for kind in kinds.values())
            raise wrong(f"{shown(value)} is not a {what}", f"write {examples}, or a mapping with `type: {names[0]}`")
        if "type" not in value:
            raise wrong(f"`type` of the {what} is missing", f"write one of {', '.join(names)}")
        kind = any_case(value["type"])
        if not isinstance(kind, str) or kind not in kinds:
            raise wrong(
                f"{shown(value['type'])} is not a {what} that Azure ML knows", nearest_or_all(value["type"], names)
            )
        return value

    return check


def of_azure(value: Any) -> Any:
    """The fields of an object of azure-ai-ml, without those that are None."""
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
    """A string that must match a pattern; `words` describe the pattern in the error."""
    regex = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not value:
            raise wrong("it is empty", "give it a value, or leave it out")
        if not regex.fullmatch(value):
            raise wrong(f"{shown(value)} is not valid: {words}")
        return value

    return AfterValidator(check)


def _open_count(value: Any, handler: Callable[[Any], int]) -> int:
    if isinstance(value, OpenCount):
        return value
    if isinstance(value, str) and ONE_EXPRESSION.fullmatch(value.strip()):
        return OpenCount(value.strip())
    return handler(value)


def _count(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise wrong(f"{shown(value)} is not a whole number")
    return value


def _printable(value: str) -> str:
    if "\0" in value:
        raise wrong("it must not contain a NUL character")
    return value


def _literal(value: Any) -> str | int | float | bool:
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"azure-ai-ml does not accept {value} as a number", f'put it in quotes: "{shown(value)}"')
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise wrong("Azure ML does not accept a number with hundreds of digits", "put it in quotes if it is a string")
    if isinstance(value, bool | int | float):
        return value
    if value is None:
        raise wrong("it has no value", "set one: Azure ML also refuses an empty string")
    hint = f'put it in quotes: "{shown(value)}"' if not isinstance(value, Mapping | Sequence) else None
    raise wrong(f"{shown(value)} is not a string, a number, true or false, or an Input", hint)


MAX_COMMAND = 131_071
"""In bytes: Linux's limit for one argument of a program, and bash gets the command as one (`MAX_ARG_STRLEN`)."""


def _words(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        text = _printable(value)
        if not text.strip():
            raise wrong("it is empty")
        if (size := len(text.encode(errors="surrogateescape"))) > MAX_COMMAND:
            hint = "put it in a script in the code folder"
            raise wrong(f"it has {size:,} bytes, but Linux allows at most {MAX_COMMAND:,} for a command of bash", hint)
        return text
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise wrong(f"{shown(value)} is not a string or a list of strings")
    if not value:
        raise wrong("it is an empty list")
    for i, word in enumerate(value):
        if not isinstance(word, str):
            raise wrong(
                f"element {i} of the list, {shown(word)}, is not a string", f'put it in quotes: "{shown(word)}"'
            )
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
        raise wrong(f"{shown(value)}: Azure ML does not accept a git address as code", "clone it, and use the folder")
    return value


def _variable(value: Any) -> Any:
    # As Python writes it; a value from YAML arrives here as the text in the file.
    return str(value) if isinstance(value, bool | int | float) else value


def _reference(value: Any) -> Any:
    """`NAME@LABEL`, `NAME:VERSION`, with `azureml:` or without; `azureml://registries/…`; or an ARM id."""
    if not isinstance(value, str):
        raise wrong(
            f"{shown(value)} is not an Environment or a reference", 'write a reference such as "azureml:NAME@latest"'
        )
    if value.startswith("file:"):
        raise wrong(f"{shown(value)} is a file", "load it: `Environment.load(path)`")
    if _ARM_ID.fullmatch(value):
        return value
    if not _ASSET.fullmatch(value):
        hint = 'write "azureml:NAME@latest" or "azureml:NAME:VERSION", or for a Docker image `Environment(image=…)`'
        if value.endswith((".yml", ".yaml")):
            hint = "load the file: `Environment.load(path)`"
        raise wrong(f"{shown(value)} is not a reference to an environment", hint)
    return value if value.startswith("azureml:") else f"azureml:{value}"


def identity_type(value: Any) -> Any:
    """`Managed`, `managed_identity`, `AMLToken`, `UserIdentity`: azure-ai-ml accepts any of these spellings."""
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
Compute = Annotated[str, BeforeValidator(_compute), named(r"\S+", "the name of a compute cannot contain spaces")]
VariableValue = Annotated[str, _AS_TEXT, AfterValidator(_printable)]

_AZURE_NAME = "use 1 to {} letters, digits, `-` and `_`, starting with a letter or a digit"
JobName = Annotated[str, named(r"[A-Za-z0-9][\w-]{0,254}", _AZURE_NAME.format(255))]
ExperimentName = Annotated[str, named(r"[A-Za-z0-9][\w-]{0,255}", _AZURE_NAME.format(256))]
AssetName = Annotated[str, named(r"[\w-]{1,255}", "use 1 to 255 letters, digits, `-` and `_`")]
PortName = Annotated[str, named(r"[A-Za-z_]\w*", "use letters, digits and `_`, not starting with a digit")]
VariableName = Annotated[str, named(r"[A-Za-z_]\w*", "use letters, digits and `_`, not starting with a digit")]
ShmSize = Annotated[str, named(r"[1-9]\d*[bkmgBKMG]", "use a whole number followed by b, k, m or g, such as `16g`")]
Version = Annotated[str, _AS_TEXT, named(r"[\w.-]{1,255}", "use letters, digits, `.`, `-` and `_`")]
Tags = Annotated[Mapping[str, Annotated[str, _AS_TEXT] | None], frozen]
