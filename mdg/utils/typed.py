"""Files of strangers as typed models: a field that is missing or of the wrong kind is one line."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from mdg.errors import UserError


class Content(BaseModel):
    """What a file must hold; it may hold more. Nothing is converted: ``"3"`` is no number."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, arbitrary_types_allowed=True)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("Input should be text without NUL characters")
    return value


# Not `str`, which refuses names of files that are not UTF-8.
Text = Annotated[InstanceOf[str], AfterValidator(_no_nul)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]


def require(
    model: type[Content], content: Mapping[str, Any], source: str | Path, advice: str, error: type[UserError]
) -> None:
    """Compares the content of ``source``, a file in most cases, with what it must hold.

    Raises:
        UserError: ``error`` with ``source``, the first field that is wrong, what was got, what was expected, and the
            ``advice``.
    """
    try:
        model.model_validate(dict(content))
    except ValidationError as problems:
        found = problems.errors(include_url=False, include_context=False)
        more = f" (and {len(found) - 1} more fields)" if len(found) > 1 else ""
        raise error(f"{source}: {_describe(found[0])}{more}; {advice}") from None


def _describe(problem: Any) -> str:
    path = ".".join(str(part)[:60] for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not path:  # a rule about several fields; the message names them
        return message
    if problem["type"] == "missing":
        return f"{path}: missing"
    value, expected = problem["input"], message.replace("Input should be ", "expected ")
    expected = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", expected)
    expected = expected.replace("an instance of str", "text").replace("an instance of Tensor", "a tensor")
    if expected == message:  # it says what was got
        return f"{path}: {message}"
    plain = value is None or isinstance(value, (str, int, float))
    return f"{path}: got {reprlib.repr(value) if plain else f'a {type(value).__name__}'}, {expected}"
