"""Scores a Ray data set, by servers or by a server that runs beside the data.

    import ray
    from karat_client.ray_data import ScoreBatches

    scored = dataset.map_batches(
        ScoreBatches,
        fn_constructor_kwargs={"url": "http://127.0.0.1:8080", "model": "assistant"},
        batch_size=256,
        num_cpus=0.1,
        compute=ray.data.ActorPoolStrategy(size=2),
    )

Ray builds the object once a worker, so that each keeps its connections. A worker only waits for a server, so it
reserves a tenth of a processor: with whole ones, a small machine has none left for reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from karat_client._shared import SharedClients, rewards_or_none
from karat_client.beside import ServerBeside
from karat_client.errors import Problem
from karat_client.options import RewardOptions, split_options
from karat_client.results import PartialScores, Refusal, ScoreResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PLACE = re.compile(r"^(inputs\[\d+\]|sample \d+)")
"""Where a refused row stood in its request, which says nothing to whoever reads a data set."""


class ScoreBatches:
    """Adds columns to a batch, which is a dict of columns.

    `reward`, `reward_raw`, `reward_disagreement` and `reward_model_version`; `output` changes the `reward` in their
    names. Prompts and responses may be text or messages. A response that the server refuses, because it is blank or
    too long, raises; with `keep_refused` its columns are null and `reward_refusal` says why. Of several addresses each
    worker asks one, and the next where that doesn't answer.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        model: str,
        *,
        prompt: str = "prompt",
        response: str = "response",
        output: str = "reward",
        keep_refused: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ValueError("url is an empty list; name at least one server")
        split = [split_options(one, model, options) for one in urls]
        self._options = split[0][1]
        self._clients = SharedClients([settings for settings, _ in split])
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
        scores = self._clients.ask(
            lambda client: client.try_score(prompts=prompts, responses=responses, **self._options)
        )
        if scores.refusals and not self._keep_refused:
            raise _without_place(scores.refusals[0])
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
            columns["_refusal"] = [None if isinstance(result, ScoreResult) else _reason(result) for result in results]
        return {f"{self._output}{suffix}": values for suffix, values in columns.items()}


class ScoreBeside(ScoreBatches):
    """As `ScoreBatches`, by a karat of the worker's own: one process a worker, so one a GPU or one a node.

        scored = dataset.map_batches(
            ScoreBeside,
            fn_constructor_kwargs={"serve": ["--models", "/models"], "model": "assistant"},
            batch_size=256,
            num_gpus=1,
            compute=ray.data.ActorPoolStrategy(size=8),
        )

    `serve` is what follows `karat serve`, `program` the program's path. The process listens on loopback, ends with its
    worker, and is started anew where it ends by itself; what it was scoring then is scored again.
    """

    def __init__(
        self,
        serve: Sequence[str],
        model: str,
        *,
        program: str = "karat",
        start_seconds: float = 600.0,
        **options: Any,
    ) -> None:
        self._server = ServerBeside([program, "serve", *serve], start_seconds)
        super().__init__(self._server.start(), model, **options)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """As `ScoreBatches`."""
        self._server.start()
        return super().__call__(batch)

    def close(self) -> None:
        """Ends the process."""
        self._server.close()


def _reason(refusal: Refusal) -> str:
    """Why a row was refused, for whoever finds it in that row."""
    if isinstance(refusal, Problem):
        return f"{refusal.title}: {_PLACE.sub('this row', refusal.detail)}"
    return refusal.detail


def _without_place(refusal: Refusal) -> Refusal:
    """The same refusal, with its row in the batch and not in the request that the row was sent in."""
    if not isinstance(refusal, Problem):
        return refusal
    refusal.detail = _PLACE.sub("this row", refusal.detail)
    return refusal


def _values(column: Any) -> list[Any]:
    """A column as a plain list: Ray hands over NumPy arrays, whose items may be arrays again."""
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]
