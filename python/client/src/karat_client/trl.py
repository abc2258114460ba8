"""Reward functions for TRL's trainers (`GRPOTrainer`, `RLOOTrainer`, `OnlineDPOTrainer`).

    from karat_client.trl import RewardFunction

    trainer = GRPOTrainer(
        model="…",
        reward_funcs=RewardFunction("http://127.0.0.1:8080", "assistant"),
        …
    )

Prompts and completions may be plain text or messages. A completion that the server refuses, because it is blank or too
long, gets `None`, which TRL reads as "not applicable", and a warning in the log; an error that no single sample is to
blame for is raised. Both functions pickle. With `run="my-run"` the server keeps statistics by the trainer's steps.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from karat_client._shared import SharedClient, rewards_or_none
from karat_client.async_client import AsyncClient
from karat_client.inputs import Prompt, Response
from karat_client.options import RewardOptions, ScoreOptions, split_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Named:
    """What both functions are made from; pickles as that."""

    def __init__(self, url: str, model: str, *, name: str | None = None, **options: Unpack[RewardOptions]) -> None:
        self._made_from = {"url": url, "model": model, "name": name, **options}
        self.settings, self.options = split_options(url, model, options)
        # TRL logs rewards under this name.
        self.__name__ = name or f"karat_{model}"

    def _options_at(self, columns: Mapping[str, Any]) -> ScoreOptions:
        """The options of one call. A run's step is the trainer's, where TRL hands over its state."""
        step = getattr(columns.get("trainer_state"), "global_step", None)
        if self.options.get("run") is None or self.options.get("step") is not None or not isinstance(step, int):
            return self.options
        return {**self.options, "step": step}

    def __getstate__(self) -> dict[str, Any]:
        return self._made_from

    def __setstate__(self, made_from: dict[str, Any]) -> None:
        self.__init__(**made_from)  # type: ignore[misc]


class RewardFunction(_Named):
    """A reward function with a blocking call; `name` is what TRL logs it under."""

    def __init__(self, url: str, model: str, *, name: str | None = None, **options: Unpack[RewardOptions]) -> None:
        super().__init__(url, model, name=name, **options)
        self._client = SharedClient(self.settings)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Response],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion, in order; None for what the server refused to score."""
        if not completions:
            return []
        client = self._client.get()
        options = self._options_at(columns)
        return rewards_or_none(client.try_score(prompts=list(prompts), responses=completions, **options))


class AsyncRewardFunction(_Named):
    """A reward function with an await, which TRL runs side by side with others; `name` is what TRL logs it under."""

    def __init__(self, url: str, model: str, *, name: str | None = None, **options: Unpack[RewardOptions]) -> None:
        super().__init__(url, model, name=name, **options)
        _mark_as_coroutine_function(self)

    async def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Response],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion, in order; None for what the server refused to score."""
        if not completions:
            return []
        # A trainer calls once a step, maybe each time in another event loop, so connections are not kept between calls.
        async with AsyncClient(**vars(self.settings)) as client:
            options = self._options_at(columns)
            return rewards_or_none(await client.try_score(prompts=list(prompts), responses=completions, **options))


def _mark_as_coroutine_function(function: AsyncRewardFunction) -> None:
    """Tells `iscoroutinefunction` that calling this object gives a coroutine.

    TRL before 1.0 asks that of the object, and would otherwise take the coroutine for the rewards.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
