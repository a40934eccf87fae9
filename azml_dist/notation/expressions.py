"""What is between `${{` and `}}` or `$[[` and `]]`, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from azml_dist.errors import Finding
from azml_dist.words import late

_REMOTE = late(r"(?i)[a-z][a-z0-9+.-]+://|azureml:|https?:|wasbs?:|\$\{\{")
ANY_EXPRESSION = late(r"(\$?)\$\{\{((?:(?!\$\{\{|\}\}).)*)\}\}", re.DOTALL)
"""Any expression: a `$` too many in front of it, and what is inside."""
ONE_EXPRESSION = late(r"\$\{\{\s*[\w.-]+\s*\}\}")
"""A string that is one expression, such as a count or a path that only a pipeline knows."""
KIND_AND_NAME = late(r"\$\{\{\s*(\w+)\.(\w+)\s*\}\}")
"""`${{kind.name}}`, of any kind."""
INPUT_OR_OUTPUT = late(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
"""What Azure ML replaces in the command: `inputs` or `outputs`, and the name."""
_OLD_EXPRESSION = late(r"(?<![{$])\{((?:inputs|outputs|search_space)\.[^{}]*)\}(?!\})")
"""azure-ai-ml's old spelling, `{inputs.x}`."""
SINGLE_BRACES = late(r"(?<!\{)(\$?)\{\s*((?:inputs|outputs|search_space)\.[^{}]*)\}(?!\})")
"""The same, or `${inputs.x}`, which an f-string makes from double braces: the `$`, and what is inside."""
WITHOUT_DOLLAR = late(r"(?<![{$])\{\{\s*((?:inputs|outputs|search_space)\.[\w.-]+)\s*\}\}(?!\})")
"""Double braces without a `$` in front, and what is inside: other tools write expressions so."""
OPTIONAL = late(r"\$\[\[((?:(?!\$\[\[|\]\]).)*)\]\]", re.DOTALL)
"""An optional part of a component's command, and what is inside."""
LET_PASS = late(r"\[[\w\.\s-]*\${{inputs\.([\w\.-]+)}}]")
"""An input in an optional part, as azure-ai-ml finds it (`_validate_inputs_for`), and its name."""
PARENT = late(r"\$\{\{\s*parent\.")
"""How an expression starts that only a pipeline knows."""
OF_A_PREVIEW = late(r"\$\{\{((?:inputs|jobs|outputs)\..*?)\}\}")
"""How previews of Azure ML wrote the value of a step's input or output, without `parent`, and what is inside."""
PARENT_INPUT = late(r"\$\{\{\s*parent\.inputs\.(\w+)\s*\}\}")
"""An input of the pipeline: its name."""
PARENT_OUTPUT = late(r"\$\{\{\s*parent\.outputs\.(\w+)\s*\}\}")
"""An output of the pipeline: its name."""
OF_STEP = late(r"\$\{\{\s*parent\.jobs\.(\w+)\.(inputs|outputs)\.(\w+)\s*\}\}")
"""An input or output of another step: the step, `inputs` or `outputs`, and the name."""
OF_RUN = late(r"\$\{\{\s*(name|output_name|default_datastore)\s*\}\}")
"""What Azure ML replaces in the address of an output."""
_INPUT = late(r"\$\{\{\s*inputs\.(\w+)\s*\}\}")
_INPUT_OF_ANY = late(r"\$\{\{\s*(?:parent\.)?inputs\.(\w+)\s*\}\}")
_SEARCH_SPACE = late(r"\$\{\{\s*search_space\.([^\s{}]*)\s*\}\}")


def expression(inside: str) -> str:
    """`${{inputs.x}}` for `inputs.x`."""
    return "${{" + inside + "}}"


def inputs_in(text: str) -> list[str]:
    """The names of the inputs in a string, each once."""
    return list(dict.fromkeys(_INPUT.findall(text)))


def inputs_of_any_in(text: str) -> list[str]:
    """The same, for inputs of the job or of its pipeline."""
    return list(dict.fromkeys(_INPUT_OF_ANY.findall(text)))


def choices_in(text: str) -> list[str]:
    """The names in a string that a sweep chooses values for, each once."""
    return list(dict.fromkeys(_SEARCH_SPACE.findall(text)))


def choices_as_inputs(command: str) -> str:
    """A trial's command with `${{inputs.x}}` for `${{search_space.x}}`: the job has what a sweep chooses as inputs."""
    return _SEARCH_SPACE.sub(r"${{inputs.\1}}", command)


def with_new_expressions(command: str) -> str:
    """A command with `${{inputs.x}}` in place of azure-ai-ml's old spelling `{inputs.x}`, as azure-ai-ml sends it."""
    return _OLD_EXPRESSION.sub(r"${{\1}}", command)


def is_remote(path: str) -> bool:
    """Whether a path refers to something in Azure or on the web, not to a file on this machine."""
    return _REMOTE.match(path) is not None


class OpenCount(int):
    """A count that is not known yet: an expression, as in a step of a pipeline. Until it is known, it counts as 1."""

    text: str

    def __new__(cls, text: str) -> OpenCount:
        count = super().__new__(cls, 1)
        count.text = text
        return count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenCount) and other.text == self.text

    def __ne__(self, other: object) -> bool:
        return not self == other  # int has its own

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return repr(self.text)

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenCount, (self.text,)


class ExistingCommand(str):
    """A command from a file or an object of azure-ai-ml, which Azure ML accepts as it is.

    What looks wrong in it may be intended, so it is a finding, not an error.
    """


class ComponentCommand(ExistingCommand):
    """A component's command: each part in `$[[ ]]` is removed if an input in it has no value."""

    read_with: tuple[Finding, ...] = ()
    """Findings about the component, for which a job has no field."""

    @classmethod
    def of(cls, text: str, findings: Iterable[Finding]) -> ComponentCommand:
        """The command of a component, with the findings about it."""
        command = cls(text)
        command.read_with = tuple(findings)
        return command
