"""What all models share: frozen, unknown fields refused, and errors in the user's terms instead of pydantic's."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from textwrap import dedent
from typing import Any, NoReturn, TypeVar, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError
from typing_extensions import Self

from azml_dist.errors import JobError, Problem

K = TypeVar("K")
V = TypeVar("V")


class Model(BaseModel):
    """A part of a job: does not change, refuses what it does not know, and says what is wrong as a `JobError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)

    def __init__(self, /, **data: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(data, self_instance=self)
        except ValidationError as error:
            # From None: what pydantic says about the same values is the same, in its own words.
            raise as_job_error(error, type(self)) from None

    # pydantic calls a custom __init__ for nested models too, whose errors would then not know their full path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Pydantic's own name for making one from a mapping; what is wrong comes as a `JobError` here too."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise as_job_error(error, cls) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A JSON Schema in which each field is described by its docstring."""
        # Here, and not by pydantic's `use_attribute_docstrings`: that one looks for the sources of each class whenever
        # it is imported, which takes 0.15 s next to azure-ai-ml.
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema).get("properties", {})
        docstrings = _docstrings(cls)
        for name, field in described.items():
            if text := docstrings.get(canonical(cls, name)):
                field.setdefault("description", text)
        return schema

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self).__name__
        raise JobError(f"a {kind} does not change", hint=f"`.with_({name}=…)` gives you a new one", where=name)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What is not at its default: the job as one would write it."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            if name not in fields or value != fields[name].get_default(call_default_factory=True):
                yield name, value

    def with_(self, **changes: Any) -> Self:
        """A variant, validated like any other: `job.with_(node_count=4)`."""
        known = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**(known | {canonical(type(self), name): value for name, value in changes.items()}))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Pydantic's own name for `with_`; validates, unlike pydantic's."""
        return self.with_(**update) if update else super().model_copy(deep=deep)


class Frozen(dict[K, V]):
    """A dict that a model holds: it reads as one, and does not change."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise JobError("the parts of a job do not change", hint="`job.with_(inputs={**job.inputs, …})` gives a new job")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def wrong(message: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises: `message` says what is wrong with the value, in our words."""
    # The message travels as a value, since pydantic would read braces in a template.
    return PydanticCustomError("azml_dist", "{message}", {"message": message, "hint": hint})


def canonical(model: type[BaseModel], name: str) -> str:
    """The name of a field for any name it is accepted by: `instance_count` is `node_count`."""
    for field, info in model.model_fields.items():
        if isinstance(info.validation_alias, AliasChoices) and name in info.validation_alias.choices:
            return field
    return name


def names_of(model: type[BaseModel]) -> list[str]:
    """Every name that a field of this model is accepted by."""
    names = list(model.model_fields)
    for info in model.model_fields.values():
        if isinstance(info.validation_alias, AliasChoices):
            names += [str(choice) for choice in info.validation_alias.choices]
    return list(dict.fromkeys(names))


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, as a hint."""
    close = get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None


def nearest_or_all(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or all of them where they are few, as a hint."""
    known = list(known)
    if hint := nearest(name, known):
        return hint
    return f"known here: {', '.join(known)}" if 0 < len(known) <= 8 else None


def as_job_error(error: ValidationError, model: type[BaseModel]) -> JobError:
    """One `JobError` for all that pydantic found."""
    return JobError.of(_problems(error, model))


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each field, those of its bases too."""
    found = {}
    for kind in reversed(model.mro()):
        if issubclass(kind, Model):
            for field, below in pairwise(_body(kind)):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = inspect.cleandoc(text)
    return found


def _body(kind: type) -> list[ast.stmt]:
    """The statements of a class; none where it was typed into an interpreter."""
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
    """Members of our unions are tagged `<data>`, which is no part of the user's path."""
    return isinstance(part, str) and part.startswith("<")


def _canonical_path(model: type[BaseModel], path: list[str]) -> list[str]:
    if path and path[-1] == "[key]":
        path = path[:-1]
    return [canonical(_model_at(model, path[:i]) or BaseModel, part) for i, part in enumerate(path)]


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The model that the names at this path belong to; None inside a mapping the user names the keys of."""
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
        return f"{shown(value)} is too small; at least {least} is needed", None
    if kind == "less_than_equal":
        return f"{shown(value)} is too large; at most {context['le']} is possible", None
    if kind == "literal_error":
        expected = cast(str, context["expected"])
        choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
        return f"{shown(value)} is not one of {', '.join(choices)}", nearest(value, choices) if value else None
    wanted = next((text for prefix, text in _WANTED.items() if kind.startswith(prefix)), None)
    if wanted is None:
        return f"{shown(value)} is not possible here: {details['msg'].lower()}", None
    quote = kind == "string_type" and isinstance(value, int | float)
    return f"{shown(value)} is not {wanted}", f'put it in quotes: "{value}"' if quote else None


def _unknown(name: str, known: list[str]) -> tuple[str, str | None]:
    if name in known:
        return f"`{name}` is given twice, under two names", None
    return f"unknown field `{name}`", nearest_or_all(name, known)


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "dict": "a mapping of names to values",
    "mapping": "a mapping of names to values",
    "tuple": "a list",
    "list": "a list",
    "model": "a mapping of fields to values",
}


def _names_beside(details: ErrorDetails, path: list[str], model: type[BaseModel]) -> list[str]:
    """The names that could stand where the unknown one does."""
    tags = [part for part in details["loc"] if _is_tag(part)]
    inner = _TAGGED.get(str(tags[-1])) if tags else None
    return names_of(inner or _model_at(model, path[:-1]) or model)


_TAGGED: dict[str, type[BaseModel]] = {}


def tag_of(model: type[BaseModel]) -> str:
    """The tag of a union's member, known to the error messages."""
    tag = f"<{model.__name__}>"
    _TAGGED[tag] = model
    return tag


def shown(value: object) -> str:
    """A value in a message: short, on one line, and never a page of it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    text = repr(value) if isinstance(value, str | int | float | list | tuple | dict) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
