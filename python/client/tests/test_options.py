"""Rules and settings."""

from __future__ import annotations

import dataclasses
import math

import pytest

from karat_client import ClientOptions, Settings, aggregates, transforms
from karat_client.rules import Rule, rule


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (aggregates.mean(), {"mean": {}}),
        (aggregates.worst_case(), {"worst_case": {}}),
        (aggregates.uncertainty_weighted(0.5), {"uncertainty_weighted": {"lambda": 0.5}}),
        (aggregates.total(), {"sum": {}}),
        (transforms.clip(minimum=-1, maximum=2), {"clip": {"min": -1, "max": 2}}),
        (transforms.clip(maximum=0), {"clip": {"max": 0}}),
        (transforms.delta(), {"delta": {}}),
        (transforms.log_sigmoid(0.3), {"log_sigmoid": {"reference": 0.3}}),
        (transforms.affine(offset=1), {"affine": {"scale": 1.0, "offset": 1}}),
        (rule("tanh", range=3), {"tanh": {"range": 3}}),
    ],
)
def test_rules_are_what_the_wire_carries(written: Rule, sent: Rule) -> None:
    assert written == sent


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_parameter_is_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        transforms.log_sigmoid(bad)


def test_every_client_option_is_a_setting() -> None:
    settings = {field.name for field in dataclasses.fields(Settings)}
    assert settings == ClientOptions.__annotations__.keys() | {"url", "model"}


@pytest.mark.parametrize("name", ["max_inputs", "max_bytes", "max_concurrency", "timeout"])
def test_settings_are_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings("http://karat", **{name: 0})  # type: ignore[arg-type]
