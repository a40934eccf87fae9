"""What all models share: they are frozen, refuse unknown fields, and report errors in our words, not pydantic's."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import Any, NoReturn, TypeVar, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError
from typing_extensions import Self

from azml_dist.errors import JobError, Problem
from azml_dist.model.signature import ReadableSignature
from azml_dist.words import nearest, nearest_or_all, shown

K = TypeVar("K")
V = TypeVar("V")


class Model(BaseModel):
    """A part of a job: immutable, refuses unknown fields, and raises `JobError` for anything invalid."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)

    def __init__(self, /, **data: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(data, self_instance=self)
        except ValidationError as error:
            # From None: pydantic's error says the same in its own words.
            raise as_job_error(error, type(self)) from None

    # pydantic also calls a custom __init__ for nested models; their errors would then lack the full path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        type.__setattr__(cls, "__signature__", ReadableSignature())

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Pydantic's own way to create a model from a mapping; this one raises `JobError` too."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise as_job_error(error, cls) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A JSON Schema in which each field is described by its docstring."""
        # pydantic's `use_attribute_docstrings` would search for the source of each class at import, which takes 0.15 s
        # next to azure-ai-ml.
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema).get("properties", {})
        docstrings = _docstrings(cls)
        for name, field in described.items():
            if text := docstrings.get(canonical(cls, name)):
                field.setdefault("description", text)
        return schema

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self).__name__
        raise JobError(
            f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind} is immutable",
            hint=f"`.with_({name}=…)` returns a changed copy",
            where=name,
        )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields that differ from their defaults: the job as you would write it."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            if name not in fields or value != fields[name].get_default(call_default_factory=True, validated_data={}):
                yield name, value

    def with_(self, **changes: Any) -> Self:
        """A changed copy, validated like any other: `job.with_(node_count=4)`."""
        known = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**(known | {canonical(type(self), name): value for name, value in changes.items()}))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Pydantic's own name for `with_`; unlike pydantic's, it validates."""
        return self.with_(**update) if update else super().model_copy(deep=deep)


class Frozen(dict[K, V]):
    """An immutable dict inside a model."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        hint = "make a changed copy: `job.with_(tags={**job.tags, …})`, likewise for any other field"
        raise JobError("the parts of a job are immutable", hint=hint)

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def wrong(message: str, hint: str | None = None) -> PydanticCustomError:
    """The error that a validator raises; `message` says in our words what is wrong with the value."""
    # The message is passed as a value because pydantic would interpret braces in a template.
    return PydanticCustomError("azml_dist", "{message}", {"message": message, "hint": hint})


def canonical(model: type[BaseModel], name: str) -> str:
    """The name of a field for any name that it accepts: `instance_count` is `node_count`."""
    for field, info in model.model_fields.items():
        if isinstance(info.validation_alias, AliasChoices) and name in info.validation_alias.choices:
            return field
    return name


def names_of(model: type[BaseModel]) -> list[str]:
    """Every name that a field of this model accepts."""
    names = list(model.model_fields)
    for info in model.model_fields.values():
        if isinstance(info.validation_alias, AliasChoices):
            names += [str(choice) for choice in info.validation_alias.choices]
    return list(dict.fromkeys(names))


def as_job_error(error: ValidationError, model: type[BaseModel]) -> JobError:
    """One `JobError` for everything that pydantic found."""
    return JobError.of(_problems(error, model))


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field, including those of its bases."""
    found = {}
    for kind in reversed(model.mro()):
        if issubclass(kind, Model):
            for field, below in pairwise(_body(kind)):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = inspect.cleandoc(text)
    return found


@cache
def _body(kind: type) -> list[ast.stmt]:
    """The statements of a class; none if it was typed into an interpreter."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return []
    return cast(ast.ClassDef, ast.parse(dedent(source)).body[0]).body


def _problems(error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        path = [str(part) for part in details["loc"] if not _is_tag(part)]
        path = _canonical_path(model, path)
        message, hint = _in_words(details, path, model)
        yield Problem(message, hint, ".".join(path) or None)


def _is_tag(part: int | str) -> bool:
    """Members of our unions are tagged `<data>`, which does not belong in the user's path."""
    return isinstance(part, str) and part.startswith("<")


def _canonical_path(model: type[BaseModel], path: list[str]) -> list[str]:
    if path and path[-1] == "[key]":
        path = path[:-1]
    return [canonical(_model_at(model, path[:i]) or BaseModel, part) for i, part in enumerate(path)]


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The model that the names at this path belong to; None inside a mapping with keys of the user's choice."""
    for part in path:
        field = model.model_fields.get(canonical(model, part))
        inner = _nested(field.annotation) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_nested(arg) for arg in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)


def _in_words(details: ErrorDetails, path: list[str], model: type[BaseModel]) -> tuple[str, str | None]:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "azml_dist":
        return context["message"], context["hint"]
    if kind == "extra_forbidden":
        return _unknown(str(details["loc"][-1]), _names_beside(details, path, model))
    if kind == "missing":
        return f"`{path[-1]}` is missing", None
    if kind in ("greater_than", "greater_than_equal"):
        least = context.get("ge", context.get("gt", 0) + 1)
        return f"{shown(value)} is too small; the minimum is {least}", None
    if kind == "less_than_equal":
        return f"{shown(value)} is too large; the maximum is {context['le']}", None
    if kind == "literal_error":
        expected = cast(str, context["expected"])
        choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
        return f"{shown(value)} is not one of {', '.join(choices)}", nearest(value, choices) if value else None
    wanted = next((text for prefix, text in _WANTED.items() if kind.startswith(prefix)), None)
    if wanted is None:
        return f"{shown(value)} is not valid here: {details['msg'].lower()}", None
    quote = kind == "string_type" and isinstance(value, int | float)
    return f"{shown(value)} is not {wanted}", f'put it in quotes: "{shown(value)}"' if quote else None


def _unknown(name: str, known: list[str]) -> tuple[str, str | None]:
    if name in known:
        return f"`{name}` is set twice, under two names", None
    return f"unknown field `{name}`", nearest_or_all(name, known)


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "dict": "a mapping of names to values",
    "mapping": "a mapping of names to values",
    "tuple": "a list",
    "list": "a list",
    "model": "a mapping of fields to values",
}


def _names_beside(details: ErrorDetails, path: list[str], model: type[BaseModel]) -> list[str]:
    """The names that would be valid in place of the unknown one."""
    tags = [part for part in details["loc"] if _is_tag(part)]
    inner = _TAGGED.get(str(tags[-1])) if tags else None
    return names_of(inner or _model_at(model, path[:-1]) or model)


_TAGGED: dict[str, type[BaseModel]] = {}


def tag_of(model: type[BaseModel]) -> str:
    """The tag of a union's member, which error messages recognize."""
    tag = f"<{model.__name__}>"
    _TAGGED[tag] = model
    return tag
