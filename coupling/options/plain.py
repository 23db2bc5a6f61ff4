"""Words of a command line that are what they look like: read without pydantic, which typer asks for every option.

It is sixty modules that each rank of a job would import, to find that `8` is a number.
"""

from __future__ import annotations

import os
from pathlib import Path
import re
from typing import Any, get_args, get_origin

from typer.core import TyperCommand

_NUMBER = {int: re.compile(r"-?\d{1,15}", re.ASCII), float: re.compile(r"-?\d+(\.\d+)?(e-?\d{1,2})?", re.ASCII)}


class PlainWords:
    """Reads the words of one option; typer does so where there is a choice, or something may be wrong with one.

    Args:
        parameter: Of typer's command.
    """

    def __init__(self, parameter: Any) -> None:
        self._typers = parameter.get_runtime_param
        self._about, self._kind = parameter.type_descriptor.parameter_info, parameter.type_descriptor.annotation
        self._many = parameter.multiple or parameter.nargs == -1

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        """What a word, or several, or a default stand for."""
        if value is None:
            return () if self._many else None
        if get_origin(self._kind) is list and isinstance(value, list | tuple):
            found = [self._read(get_args(self._kind)[0], each) for each in value]
        else:
            found = [self._read(self._kind, value)]
        if None in found:
            param._runtime_param = None  # typer makes its own then
            return self._typers().coerce(value, param=param, ctx=ctx)
        return found if get_origin(self._kind) is list else found[0]

    def _read(self, kind: Any, value: Any) -> Any:
        """A value; None if it is not as plain as that."""
        if self._about.parser is not None or self._about.clamp:
            return None
        if kind is str:
            return value if isinstance(value, str) else None
        if kind is Path:
            return Path(value) if self._may_be(value) else None
        if kind not in _NUMBER:
            return None
        if isinstance(value, str):
            value = kind(value) if _NUMBER[kind].fullmatch(value) else None
        low, high = self._about.min, self._about.max
        within = type(value) is kind and (low is None or value >= low) and (high is None or value <= high)
        return value if within else None

    def _may_be(self, path: Any) -> bool:
        """Whether nothing is asked of a path but that it can be read if it is there."""
        about = self._about
        plain = about.file_okay and about.dir_okay and about.readable and about.path_type is None
        more = about.exists or about.writable or about.resolve_path or about.allow_dash
        return plain and not more and (os.access(path, os.R_OK) or not os.path.lexists(path))


class PlainCommand(TyperCommand):
    """A command whose options read plain words without pydantic, as far as this version of typer lets them."""

    def get_params(self, ctx: Any) -> Any:
        """All parameters, also the one for help."""
        return with_plain_words(super().get_params(ctx))


def with_plain_words(parameters: Any) -> Any:
    """Parameters of a command of typer, which read plain words without it."""
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", parameter) is None:
            parameter._runtime_param = PlainWords(parameter)
    return parameters
