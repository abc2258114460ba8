"""The client with awaits: the same operations as `karat_client.client`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from karat_client import _jobs, _runs, _server
from karat_client import _operations as operations
from karat_client._base import Base, http_options
from karat_client._drivers import AsyncContent, AsyncDriver
from karat_client._requests import gather_inputs
from karat_client._timing import Timing
from karat_client.inputs import Messages, Prompt, Response, preferences, solutions
from karat_client.jobs import Job, JobResults
from karat_client.options import ClientOptions, CritiqueOptions, PartOptions, ScoreOptions, Settings
from karat_client.results import (
    Comparisons,
    Critiques,
    KnownScores,
    PartialScores,
    ProcessScores,
    Ranking,
    Scores,
    TokenScores,
)
from karat_client.runs import Outcome, OutcomesTold, Run
from karat_client.server import Health, ModelCard
from karat_client.streams import AsyncCritiqueStream

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from karat_client.options import AnyRule


class AsyncClient(Base):
    """A client with awaits, for use within one event loop. Its methods are those of `Client`."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timing: Timing | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Settings(url, model, **options), timing)
        http = httpx.AsyncClient(transport=transport, **http_options(self.settings))
        self._driver = AsyncDriver(http, self._timing, self.settings.max_concurrency)

    async def score(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """As `Client.score`."""
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return await self._driver.run(operations.score(self._caller, inputs, options))

    async def try_score(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> PartialScores:
        """As `Client.try_score`."""
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return await self._driver.run(operations.try_score(self._caller, inputs, options))

    async def known_scores(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> KnownScores:
        """As `Client.known_scores`."""
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return await self._driver.run(operations.known_scores(self._caller, inputs, options))

    async def best_of_n(
        self,
        prompt: Prompt,
        responses: Iterable[Response],
        *,
        select: AnyRule | None = None,
        answers: Sequence[str] | None = None,
        embeddings: Sequence[Sequence[float]] | None = None,
        embedding_model: str | None = None,
        curve: bool = False,
        **options: Unpack[ScoreOptions],
    ) -> Ranking:
        """As `Client.best_of_n`."""
        choice = {
            "select": select,
            "answers": answers,
            "embeddings": embeddings,
            "embedding_model": embedding_model,
            "curve": curve or None,
        }
        return await self._driver.run(operations.best_of_n(self._caller, prompt, responses, choice, options))

    async def best_of_n_each(
        self,
        prompts: Iterable[Prompt],
        responses: Iterable[Iterable[Response]],
        *,
        select: AnyRule | None = None,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> list[Ranking]:
        """As `Client.best_of_n_each`."""
        choice = {"select": select}
        return await self._driver.run(
            operations.best_of_n_each(self._caller, list(prompts), list(responses), choice, options, progress)
        )

    async def compare(
        self,
        prompts: Prompt | Iterable[Prompt],
        chosen: Iterable[Response],
        rejected: Iterable[Response],
        *,
        beta: float | None = None,
        cuts: Mapping[str, Mapping[str, float]] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Comparisons:
        """As `Client.compare`."""
        pairs = preferences(prompts, chosen, rejected)
        return await self._driver.run(operations.compare(self._caller, pairs, {"beta": beta, "cuts": cuts}, options))

    async def process(
        self, prompts: Prompt | Iterable[Prompt], steps: Iterable[Sequence[str]], **options: Unpack[PartOptions]
    ) -> ProcessScores:
        """As `Client.process`."""
        return await self._driver.run(operations.process(self._caller, solutions(prompts, steps), options))

    async def tokens(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[PartOptions],
    ) -> TokenScores:
        """As `Client.tokens`."""
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return await self._driver.run(operations.tokens(self._caller, inputs, options))

    async def critique(self, prompt: Prompt, response: Response, **options: Unpack[CritiqueOptions]) -> Critiques:
        """As `Client.critique`."""
        return await self._driver.run(operations.critique(self._caller, prompt, response, options))

    def critique_stream(
        self, prompt: Prompt, response: Response, **options: Unpack[CritiqueOptions]
    ) -> AsyncCritiqueStream:
        """As `Client.critique_stream`, for `async with` and `async for`."""
        exchange = self._caller.exchange(options.get("timeout"))

        async def connect() -> AsyncContent:
            opening = operations.open_critique(exchange, self._caller, prompt, response, options)
            content: AsyncContent = (await self._driver.run(opening)).unread
            return content

        return AsyncCritiqueStream(exchange.deadline, self._timing.today(), operations.wanted(options), connect)

    async def models(self, *, timeout: float | None = None) -> list[ModelCard]:
        """As `Client.models`."""
        return await self._driver.run(_server.models(self._caller, timeout))

    async def model(self, name: str, *, timeout: float | None = None) -> ModelCard:
        """As `Client.model`."""
        return await self._driver.run(_server.model(self._caller, name, timeout))

    async def run(self, name: str, *, timeout: float | None = None) -> Run:
        """As `Client.run`."""
        return await self._driver.run(_runs.run(self._caller, name, timeout))

    async def configure_run(
        self,
        name: str,
        *,
        judge: Mapping[str, Any] | None = None,
        probe: Mapping[str, Any] | None = None,
        reference: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """As `Client.configure_run`."""
        config = {"judge": judge, "probe": probe, "reference": reference}
        await self._driver.run(_runs.configure_run(self._caller, name, config, timeout))

    async def add_outcomes(
        self, name: str, outcomes: Iterable[Outcome], *, timeout: float | None = None
    ) -> OutcomesTold:
        """As `Client.add_outcomes`."""
        return await self._driver.run(_runs.add_outcomes(self._caller, name, outcomes, timeout))

    async def submit_job(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Job:
        """As `Client.submit_job`."""
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return await self._driver.run(_jobs.submit(self._caller, inputs, options, idempotency_key))

    async def job(self, job: str, *, timeout: float | None = None) -> Job:
        """As `Client.job`."""
        return await self._driver.run(_jobs.find(self._caller, job, timeout))

    async def job_results(
        self, job: str, *, offset: int = 0, limit: int = 1000, timeout: float | None = None
    ) -> JobResults:
        """As `Client.job_results`."""
        return await self._driver.run(_jobs.results(self._caller, job, offset, limit, timeout))

    async def cancel_job(self, job: str, *, timeout: float | None = None) -> Job:
        """As `Client.cancel_job`."""
        return await self._driver.run(_jobs.cancel(self._caller, job, timeout))

    async def health(self, *, timeout: float | None = None) -> Health:
        """As `Client.health`."""
        return await self._driver.run(_server.health(self._caller, timeout))

    async def ready(self, *, timeout: float | None = None) -> bool:
        """As `Client.ready`."""
        return (await self.health(timeout=timeout)).status == "ready"

    async def wait_ready(self, *, timeout: float | None = None) -> Health:
        """As `Client.wait_ready`."""
        return await self._driver.run(_server.wait_ready(self._caller, timeout))

    async def aclose(self) -> None:
        """Closes the connections; an `async with` block does it by itself."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
