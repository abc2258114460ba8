"""Reward functions for ms-swift's GRPO.

In a plugin file of your own, which `--external_plugins` names:

    from functools import partial

    from karat_client.ms_swift import KaratReward
    from swift.rewards import orms

    orms["karat"] = partial(KaratReward, url="http://127.0.0.1:8080", model="assistant")

and then `--reward_funcs karat`.

The prompt is read from the `messages` of each row. A completion that the server refuses, because it is blank or too
long, gets `None`, which ms-swift leaves out, and a warning in the log; an error that no single sample is to blame for
is raised. Both classes have the methods of ms-swift's `ORM` and `AsyncORM` without needing ms-swift to be importable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from karat_client._shared import SharedClient, rewards_or_none
from karat_client.async_client import AsyncClient
from karat_client.inputs import Messages, Response
from karat_client.options import RewardOptions, split_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class KaratReward:
    """An outcome reward model with a blocking call. `args` are ms-swift's and are kept, not read."""

    def __init__(self, args: Any = None, *, url: str, model: str, **options: Unpack[RewardOptions]) -> None:
        self.args = args
        settings, self._options = split_options(url, model, options)
        self._client = SharedClient(settings)

    def __call__(self, completions: Sequence[Response], **columns: Any) -> list[float | None]:
        """One reward a completion, in order. Raises ValueError without a column `messages`."""
        if not completions:
            return []
        prompts = _prompts(columns, len(completions))
        client = self._client.get()
        return rewards_or_none(client.try_score(prompts=prompts, responses=completions, **self._options))


class AsyncKaratReward:
    """An outcome reward model with an await. `args` are ms-swift's and are kept, not read."""

    def __init__(self, args: Any = None, *, url: str, model: str, **options: Unpack[RewardOptions]) -> None:
        self.args = args
        self._settings, self._options = split_options(url, model, options)

    async def __call__(self, completions: Sequence[Response], **columns: Any) -> list[float | None]:
        """One reward a completion, in order. Raises ValueError without a column `messages`."""
        if not completions:
            return []
        prompts = _prompts(columns, len(completions))
        # ms-swift starts a new event loop for every step, so connections can't be kept between calls.
        async with AsyncClient(**vars(self._settings)) as client:
            return rewards_or_none(await client.try_score(prompts=prompts, responses=completions, **self._options))


def _prompts(columns: Mapping[str, Any], count: int) -> list[Messages]:
    """The turns before each completion. ms-swift's `messages` end with the completion itself."""
    rows = columns.get("messages")
    if rows is None or len(rows) != count:
        raise ValueError(
            f"{count} completions need as many rows in the column 'messages', and the columns are {sorted(columns)}"
        )
    return [
        turns[:-1] if turns and isinstance(turns[-1], Mapping) and turns[-1].get("role") == "assistant" else turns
        for turns in rows
    ]
