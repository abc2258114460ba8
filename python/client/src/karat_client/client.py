"""The client with blocking calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from karat_client import _jobs, _runs, _server
from karat_client import _operations as operations
from karat_client._base import Base, http_options
from karat_client._drivers import SyncContent, SyncDriver
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
from karat_client.streams import CritiqueStream

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from karat_client.options import AnyRule


class Client(Base):
    """A client with blocking calls. Threads may share it; processes may not.

    `Client("http://127.0.0.1:8080", model="assistant")`; what else can be set is in `ClientOptions`. `transport` and
    `timing` are for tests and for connections of another kind.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        timing: Timing | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Settings(url, model, **options), timing)
        http = httpx.Client(transport=transport, **http_options(self.settings))
        self._driver = SyncDriver(http, self._timing, self.settings.max_concurrency)

    def score(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """Scores prompts with responses, dialogues, or rendered texts: exactly one of the three.

        A response may be an `Image`; of a model that rates images by themselves the prompt is "".
        Every input is scored, in order, or an error is raised: `Problem` for what the server refuses (its
        `index` says which input), `InvalidInput`, `TimeoutPassed`, `ConnectionFailed`, `InvalidReply`,
        `VersionsDiffer`. ValueError for inputs that don't fit together.
        """
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return self._driver.run(operations.score(self._caller, inputs, options))

    def try_score(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> PartialScores:
        """Like `score`, but an input that is itself at fault doesn't fail the others.

        A blank response, or one that is too long, gets the reason in the place of its result. Errors that no
        single input is to blame for are raised as by `score`.
        """
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return self._driver.run(operations.try_score(self._caller, inputs, options))

    def known_scores(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> KnownScores:
        """The scores that the server knows already, at once; the others are queued, the newest first.

        What isn't known yet is `Pending`: ask again some time later. Raises as `score` does.
        """
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return self._driver.run(operations.known_scores(self._caller, inputs, options))

    def best_of_n(
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
        """Scores the candidates for one prompt, ranks them, and picks by the rule `select`: the best by default.

        `answers` are the candidates' final answers, for rules that count votes; `embeddings` are for rules that look
        for diversity, and `embedding_model` names a model of the server that makes them. `curve` adds what the best of
        n is worth for every n. A response is text, an `Image`, or a single turn.
        Raises as `score` does.
        """
        choice = {
            "select": select,
            "answers": answers,
            "embeddings": embeddings,
            "embedding_model": embedding_model,
            "curve": curve or None,
        }
        return self._driver.run(operations.best_of_n(self._caller, prompt, responses, choice, options))

    def best_of_n_each(
        self,
        prompts: Iterable[Prompt],
        responses: Iterable[Iterable[Response]],
        *,
        select: AnyRule | None = None,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> list[Ranking]:
        """As `best_of_n` for each prompt with its own candidates, several prompts side by side.

        `progress` is called with how many are done, and of how many, whenever one is. The timeout is each prompt's own.
        Raises as `score` does, for the first prompt that fails.
        """
        choice = {"select": select}
        return self._driver.run(
            operations.best_of_n_each(self._caller, list(prompts), list(responses), choice, options, progress)
        )

    def compare(
        self,
        prompts: Prompt | Iterable[Prompt],
        chosen: Iterable[Response],
        rejected: Iterable[Response],
        *,
        beta: float | None = None,
        cuts: Mapping[str, Mapping[str, float]] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Comparisons:
        """Compares a chosen and a rejected response for each prompt.

        `beta` divides the margins into reward differences; `cuts` (`strengths` or `shares`, each with `flip`,
        `ambiguous` and `smooth`) ask for suggestions. A response is text, an `Image`, or a single turn.
        Raises as `score` does.
        """
        pairs = preferences(prompts, chosen, rejected)
        return self._driver.run(operations.compare(self._caller, pairs, {"beta": beta, "cuts": cuts}, options))

    def process(
        self, prompts: Prompt | Iterable[Prompt], steps: Iterable[Sequence[str]], **options: Unpack[PartOptions]
    ) -> ProcessScores:
        """Scores each step of solutions, with a model that has a process head. Raises as `score` does."""
        return self._driver.run(operations.process(self._caller, solutions(prompts, steps), options))

    def tokens(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        **options: Unpack[PartOptions],
    ) -> TokenScores:
        """Scores each token of responses, with a model that has a token head. Raises as `score` does."""
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return self._driver.run(operations.tokens(self._caller, inputs, options))

    def critique(self, prompt: Prompt, response: Response, **options: Unpack[CritiqueOptions]) -> Critiques:
        """Has a model write critiques of a response, and the response scored with them in view.

        A response is text or a single turn. Raises as `score` does.
        """
        return self._driver.run(operations.critique(self._caller, prompt, response, options))

    def critique_stream(self, prompt: Prompt, response: Response, **options: Unpack[CritiqueOptions]) -> CritiqueStream:
        """As `critique`, with the text as it is written: see `karat_client.streams`.

        What is refused before the first letter is sent again as by every call; later nothing is.
        """
        exchange = self._caller.exchange(options.get("timeout"))

        def connect() -> SyncContent:
            opening = operations.open_critique(exchange, self._caller, prompt, response, options)
            content: SyncContent = self._driver.run(opening).unread
            return content

        return CritiqueStream(exchange.deadline, self._timing.today(), operations.wanted(options), connect)

    def models(self, *, timeout: float | None = None) -> list[ModelCard]:
        """Every model of the server, also those that load or failed."""
        return self._driver.run(_server.models(self._caller, timeout))

    def model(self, name: str, *, timeout: float | None = None) -> ModelCard:
        """One model of the server. Raises UnknownModel."""
        return self._driver.run(_server.model(self._caller, name, timeout))

    def run(self, name: str, *, timeout: float | None = None) -> Run:
        """What the server knows of a training run, its signals included."""
        return self._driver.run(_runs.run(self._caller, name, timeout))

    def configure_run(
        self,
        name: str,
        *,
        judge: Mapping[str, Any] | None = None,
        probe: Mapping[str, Any] | None = None,
        reference: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Asks more of a training run than statistics, in place of what was asked before.

        `judge` is `{"model": …, "share": …}`, a second model that the policy doesn't see; `probe` is `{"share": …}`;
        `reference` is another run that this one is compared with.
        """
        config = {"judge": judge, "probe": probe, "reference": reference}
        self._driver.run(_runs.configure_run(self._caller, name, config, timeout))

    def add_outcomes(self, name: str, outcomes: Iterable[Outcome], *, timeout: float | None = None) -> OutcomesTold:
        """Tells what came of samples that were scored: a test, a person, a benchmark."""
        return self._driver.run(_runs.add_outcomes(self._caller, name, outcomes, timeout))

    def submit_job(
        self,
        *,
        prompts: Prompt | Iterable[Prompt] | None = None,
        responses: Iterable[Response] | None = None,
        messages: Iterable[Messages] | None = None,
        texts: Iterable[str] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Job:
        """Has many inputs scored when the server has nothing else to do; returns once it has all of them.

        They are handed over in one request. Raises as `score` does for what could never be scored.

        A job that is submitted again under the same `idempotency_key`, such as by a script that was killed, is the
        same job, and `errors.OtherJob` is raised where its inputs or options differ. By default each call has a key
        of its own.
        """
        inputs = gather_inputs(prompts=prompts, responses=responses, messages=messages, texts=texts)
        return self._driver.run(_jobs.submit(self._caller, inputs, options, idempotency_key))

    def job(self, job: str, *, timeout: float | None = None) -> Job:
        """How far a job is."""
        return self._driver.run(_jobs.find(self._caller, job, timeout))

    def job_results(self, job: str, *, offset: int = 0, limit: int = 1000, timeout: float | None = None) -> JobResults:
        """A job's results from a place on, up to 10,000; waits until there is one.

        No results mean that the job has ended and has no more. Raises TimeoutPassed.
        """
        return self._driver.run(_jobs.results(self._caller, job, offset, limit, timeout))

    def cancel_job(self, job: str, *, timeout: float | None = None) -> Job:
        """Cancels a job, whose results so far stay, or removes one that has ended with its results."""
        return self._driver.run(_jobs.cancel(self._caller, job, timeout))

    def health(self, *, timeout: float | None = None) -> Health:
        """How far the server has come; asks once. Raises ConnectionFailed when it doesn't answer."""
        return self._driver.run(_server.health(self._caller, timeout))

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether every model has warmed up. Raises ConnectionFailed when the server doesn't answer."""
        return self.health(timeout=timeout).status == "ready"

    def wait_ready(self, *, timeout: float | None = None) -> Health:
        """Waits until the server is there and every model has warmed up.

        Raises ModelsFailed when none could be loaded, and TimeoutPassed.
        """
        return self._driver.run(_server.wait_ready(self._caller, timeout))

    def close(self) -> None:
        """Closes the connections; a `with` block does it by itself."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
