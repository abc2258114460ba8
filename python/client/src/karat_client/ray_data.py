"""Scores a Ray data set.

    from karat_client.ray_data import ScoreBatches

    scored = dataset.map_batches(
        ScoreBatches,
        fn_constructor_kwargs={"url": "http://127.0.0.1:8080", "model": "assistant"},
        concurrency=2,
    )

Ray builds the object once a worker, so that each keeps its connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from karat_client._shared import SharedClient, rewards_or_none
from karat_client.options import RewardOptions, split_options
from karat_client.results import PartialScores, ScoreResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ScoreBatches:
    """Adds columns to a batch, which is a dict of columns.

    `reward`, `reward_raw`, `reward_disagreement` and `reward_model_version`; `output` changes the `reward` in their
    names. Prompts and responses may be text or messages. A response that the server refuses, because it is blank or
    too long, raises; with `keep_refused` its columns are null and `reward_refusal` says why.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        prompt: str = "prompt",
        response: str = "response",
        output: str = "reward",
        keep_refused: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        settings, self._options = split_options(url, model, options)
        self._client = SharedClient(settings)
        self._prompt = prompt
        self._response = response
        self._output = output
        self._keep_refused = keep_refused

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with the new columns. Raises ValueError when a column is missing or already there."""
        missing = [name for name in (self._prompt, self._response) if name not in batch]
        if missing:
            raise ValueError(f"the batch has no {', '.join(missing)} but {', '.join(batch)}")
        prompts, responses = _values(batch[self._prompt]), _values(batch[self._response])
        columns = self._columns(self._score(prompts, responses) if responses else None)
        taken = columns.keys() & batch.keys()
        if taken:
            raise ValueError(f"the batch has {', '.join(sorted(taken))} already; name others with output=…")
        return {**batch, **columns}

    def _score(self, prompts: list[Any], responses: list[Any]) -> PartialScores:
        scores = self._client.get().try_score(prompts=prompts, responses=responses, **self._options)
        if scores.refusals and not self._keep_refused:
            raise scores.refusals[0]
        rewards_or_none(scores)
        return scores

    def _columns(self, scores: PartialScores | None) -> dict[str, list[Any]]:
        results = () if scores is None else scores.results
        version = None if scores is None else scores.model_version
        scored = [result if isinstance(result, ScoreResult) else None for result in results]
        columns: dict[str, list[Any]] = {
            "": [result and result.reward for result in scored],
            "_raw": [result and result.raw for result in scored],
            "_disagreement": [result and result.ensemble.disagreement for result in scored],
            "_model_version": [result and version for result in scored],
        }
        if self._keep_refused:
            columns["_refusal"] = [None if isinstance(result, ScoreResult) else str(result) for result in results]
        return {f"{self._output}{suffix}": values for suffix, values in columns.items()}


def _values(column: Any) -> list[Any]:
    """A column as a plain list: Ray hands over NumPy arrays, whose items may be arrays again."""
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]
