"""The signature of a model as a person would write it, without pydantic's validators: this is what `Job?` shows."""

from __future__ import annotations

import collections.abc
import types
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


class ReadableSignature:
    """A class attribute that is computed on access, so that it does not slow down the import."""

    def __get__(self, instance: object, model: type[BaseModel]) -> Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        parameters = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=_Text(plain(field.annotation)))
            for name, field in model.model_fields.items()
        ]
        required = [p for p in parameters if p.default is Parameter.empty]
        return Signature([*required, *(p for p in parameters if p not in required)])


class _Text(str):
    """An annotation that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def plain(annotation: Any) -> str:
    """A type as a person would write it: `str | None`, `Mapping[str, Input | str | int]`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return plain(args[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(plain(arg) for arg in args))
    if origin is Literal:
        return " | ".join(repr(arg) for arg in args)
    if origin is not None:
        name = "Mapping" if origin is collections.abc.Mapping else origin.__name__
        return f"{name}[{', '.join(plain(arg) for arg in args)}]"
    if annotation in (None, type(None)):
        return "None"
    return "..." if annotation is ... else getattr(annotation, "__name__", str(annotation))


def _default(field: Any) -> Any:
    if field.default_factory is not None:
        return field.default_factory()
    return Parameter.empty if field.default is PydanticUndefined else field.default
