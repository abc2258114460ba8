"""Reward functions for verl.

In a file of your own:

    from karat_client.verl import compute_score_async

    compute_score = compute_score_async("http://127.0.0.1:8080", "assistant", prompt="question")

and in verl's configuration `reward.custom_reward_function.path` is that file and `….name` is `compute_score`
(`custom_reward_function` without `reward.` before verl 0.8).

verl hands over the response but not the prompt: that is read from the sample's `extra_info`, which your data
preparation fills.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from karat_client._shared import SharedAsyncClient, SharedClient, rewards_or_none
from karat_client.inputs import Prompt
from karat_client.options import RewardOptions, split_options
from karat_client.results import PartialScores, ScoreResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

PromptSource: TypeAlias = str | Callable[[Mapping[str, Any]], Prompt]
Score: TypeAlias = Union[float, "dict[str, float]"]

CONCURRENCY = 64
"""Samples on their way at once unless `max_concurrency` says otherwise: verl asks for one sample a call.

The pool's own work grows with the square of its connections; beyond this number it outweighs the wait it saves.
"""


class ComputeScore:
    """verl's `compute_score` with a blocking call. Pickles.

    `prompt` is a key of `extra_info`, or a function of it, that gives the prompt as text or messages. With
    `details` each call returns a dict, whose other keys verl logs: `raw`, `mean`, `worst_case`, `disagreement` and
    `scored` (1, or 0 for a refused sample), the same on every sample.

    A response that the server refuses, because it is blank or too long, raises unless `refused_score` says which
    score it gets; that is then also its `raw`, `mean` and `worst_case`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        prompt: PromptSource = "prompt",
        details: bool = False,
        refused_score: float | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        self._rule = _Rule(prompt, details, refused_score)
        settings, self._options = split_options(url, model, _with_concurrency(options))
        self._client = SharedClient(settings)

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any = None,
        extra_info: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Score:
        """The score of one response. Raises ValueError when `extra_info` has no prompt."""
        prompt = self._rule.prompt_of(extra_info)
        client = self._client.get()
        return self._rule.score_of(client.try_score(prompts=[prompt], responses=[solution_str], **self._options))


class AsyncComputeScore:
    """verl's `compute_score` with an await. verl needs its method `compute_score`, not the object."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        prompt: PromptSource = "prompt",
        details: bool = False,
        refused_score: float | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        self._rule = _Rule(prompt, details, refused_score)
        settings, self._options = split_options(url, model, _with_concurrency(options))
        self._client = SharedAsyncClient(settings)

    async def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any = None,
        extra_info: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Score:
        """The score of one response. Raises ValueError when `extra_info` has no prompt."""
        prompt = self._rule.prompt_of(extra_info)
        client = self._client.get()
        return self._rule.score_of(await client.try_score(prompts=[prompt], responses=[solution_str], **self._options))


def compute_score_async(
    url: str,
    model: str,
    *,
    prompt: PromptSource = "prompt",
    details: bool = False,
    refused_score: float | None = None,
    **options: Unpack[RewardOptions],
) -> Callable[..., Coroutine[Any, Any, Score]]:
    """A `compute_score` that verl recognises as a coroutine function; for the parameters see `ComputeScore`.

    It is a method bound to its settings, and pickles.
    """
    function = AsyncComputeScore(url, model, prompt=prompt, details=details, refused_score=refused_score, **options)
    return function.compute_score


class _Rule:
    """How a sample becomes an input, and its result a score."""

    def __init__(self, prompt: PromptSource, details: bool, refused_score: float | None) -> None:
        if refused_score is not None and not math.isfinite(refused_score):
            raise ValueError(f"refused_score is {refused_score}; write a finite number")
        self._prompt = prompt
        self._details = details
        self._refused_score = refused_score

    def prompt_of(self, extra_info: Mapping[str, Any] | None) -> Prompt:
        found = extra_info or {}
        if callable(self._prompt):
            return self._prompt(found)
        if self._prompt not in found:
            raise ValueError(
                f"extra_info has no {self._prompt!r} but {sorted(found)}; add the prompt in your data preparation, "
                "or name the key that holds it with prompt=…"
            )
        prompt = found[self._prompt]
        # Messages that went through Parquet come back as an array.
        return prompt.tolist() if hasattr(prompt, "tolist") else prompt  # type: ignore[no-any-return]

    def score_of(self, scores: PartialScores) -> Score:
        (result,) = scores.results
        if isinstance(result, ScoreResult):
            ensemble = result.ensemble
            values = [result.reward, result.raw, ensemble.mean, ensemble.worst_case, ensemble.disagreement, 1.0]
        elif self._refused_score is None:
            raise result
        else:
            rewards_or_none(scores)
            values = [*[self._refused_score] * 4, 0.0, 0.0]
        if not self._details:
            return values[0]
        names = ("score", "raw", "mean", "worst_case", "disagreement", "scored")
        return dict(zip(names, values, strict=True))


def _with_concurrency(options: RewardOptions) -> RewardOptions:
    return {"max_concurrency": CONCURRENCY, **options}
