"""Aggregations and transforms as the wire knows them: a name, or a table with the name as its only key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias, Union

Parameter: TypeAlias = Union[bool, int, float, str, "list[Parameter]", "dict[str, Parameter]", None]
Rule: TypeAlias = Mapping[str, Mapping[str, Parameter]]
"""A rule with its parameters, such as `{"clip": {"min": -5}}`."""


def rule(name: str, /, **parameters: Parameter) -> Rule:
    """Any rule of the server by its name, also one that has no function here yet.

    The server checks name and parameters. Raises ValueError for a parameter that isn't a finite number, which
    JSON can't carry.
    """
    for key, value in parameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: {key} is {value}; write a finite number")
    return {name: parameters}
