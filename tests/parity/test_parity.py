"""A running karat against the reference implementation, on 200 real texts.

Every model is scored alone, in batches, in shuffled order and under concurrent clients. A score that depends on its
neighbours, its padding or its place in a batch shows up as a difference between these modes; a wrong rendering, token
or aggregation shows up as a difference from the reference. `pytest -s` prints the differences.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from karat_client import Client, ScoreResult, aggregates
from tests.parity.reference import GraphModel, Text, composite
from tests.parity.texts import load_texts
from tests.server_files import CACHE, MODELS, executable
from tools.server_process import ServerProcess

GRAPHS = ("relevance", "harmless")
COMPOSITE = "assistant"
TOLERANCE = 1e-4
BATCH = 32
CLIENTS = 32
UNCERTAINTY_LAMBDA = 0.5

# What the server says of one text: the reward, then mean, worst case and
# population variance over the members, then every member.
Row = list[float]


@pytest.fixture(scope="module")
def graphs() -> dict[str, GraphModel]:
    return {name: GraphModel(MODELS / name) for name in GRAPHS}


@pytest.fixture(scope="module")
def texts(graphs: dict[str, GraphModel]) -> list[Text]:
    return load_texts(CACHE, graphs[GRAPHS[0]])


@pytest.fixture(scope="module")
def logits(graphs: dict[str, GraphModel], texts: list[Text]) -> dict[str, np.ndarray]:
    """Each graph's own scores of each text, by itself."""
    return {name: model.logits(texts) for name, model in graphs.items()}


@pytest.fixture(scope="module")
def expected(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows `[texts, 4 + members]` of every model, by name."""
    rows = {name: expected_rows(values, values.mean(axis=1)) for name, values in logits.items()}
    terms = composite(MODELS / COMPOSITE, logits)
    rows[COMPOSITE] = expected_rows(terms, terms.sum(axis=1))
    return rows


@pytest.fixture(scope="module")
def client(onnxruntime: None) -> Iterator[Client]:
    # Without a cache, or the modes after the first would compare it with itself.
    with (
        ServerProcess(executable(), MODELS, "--cache-mb", "0") as server,
        Client(server.url, max_concurrency=CLIENTS) as client,
    ):
        yield client


def expected_rows(members: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """What the server should answer with."""
    summary = [reward, members.mean(axis=1), members.min(axis=1), members.var(axis=1)]
    return np.concatenate([np.stack(summary, axis=1), members], axis=1)


def ask(client: Client, model: str, texts: list[Text]) -> list[Row]:
    """Scores `texts` in one request."""
    scores = client.score(
        prompts=[text.prompt for text in texts],
        responses=[text.response for text in texts],
        model=model,
        include=["members"],
    )
    return [row(result) for result in scores.results]


def row(result: ScoreResult) -> Row:
    ensemble = result.ensemble
    assert ensemble.members is not None
    return [result.reward, ensemble.mean, ensemble.worst_case, ensemble.variance, *ensemble.members]


def alone(client: Client, model: str, texts: list[Text]) -> list[Row]:
    """One text a request, one request at a time."""
    return [row for text in texts for row in ask(client, model, [text])]


def batched(client: Client, model: str, texts: list[Text]) -> list[Row]:
    """32 texts a request."""
    groups = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    return [row for group in groups for row in ask(client, model, group)]


def shuffled(client: Client, model: str, texts: list[Text]) -> list[Row]:
    """32 texts a request, in another order; the rows come back in the texts' own."""
    order = list(range(len(texts)))
    random.Random(29).shuffle(order)
    rows = batched(client, model, [texts[index] for index in order])
    return [row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])]


def concurrent(client: Client, model: str, texts: list[Text]) -> list[Row]:
    """One text a request, from 32 threads at once."""
    start = threading.Barrier(CLIENTS)

    def one_thread(share: Iterable[int]) -> list[tuple[int, Row]]:
        start.wait()
        return [(index, ask(client, model, [texts[index]])[0]) for index in share]

    shares = [range(thread, len(texts), CLIENTS) for thread in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = [pair for pairs in pool.map(one_thread, shares) for pair in pairs]
    return [row for _, row in sorted(answered, key=lambda pair: pair[0])]


def largest(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest absolute difference; infinite for other shapes or a value that is no number."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("mode", [alone, batched, shuffled, concurrent])
@pytest.mark.parametrize("model", [*GRAPHS, COMPOSITE])
def test_scores_are_those_of_the_reference(
    model: str,
    mode: Callable[[Client, str, list[Text]], list[Row]],
    client: Client,
    texts: list[Text],
    expected: dict[str, np.ndarray],
) -> None:
    difference = largest(np.array(mode(client, model, texts)), expected[model])
    print(f"\n{model}, {mode.__name__}: {len(texts)} texts, largest difference {difference:.1e}")
    assert difference <= TOLERANCE


def test_the_uncertainty_weighted_score_is_that_of_the_reference(
    client: Client, texts: list[Text], expected: dict[str, np.ndarray]
) -> None:
    some = texts[:BATCH]
    scores = client.score(
        prompts=[text.prompt for text in some],
        responses=[text.response for text in some],
        model="harmless",
        aggregate=aggregates.uncertainty_weighted(UNCERTAINTY_LAMBDA),
    )
    mean, variance = expected["harmless"][:BATCH, 1], expected["harmless"][:BATCH, 3]
    assert largest(np.array(scores.rewards), mean - UNCERTAINTY_LAMBDA * variance) <= TOLERANCE


@pytest.mark.card
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graphs_own_scores_do_not_depend_on_the_batch(
    name: str, graphs: dict[str, GraphModel], texts: list[Text], logits: dict[str, np.ndarray]
) -> None:
    groups = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    padded = np.concatenate([graphs[name].logits_of_batch(group) for group in groups])
    difference = largest(padded, logits[name])
    note = "bit-identical" if np.array_equal(logits[name], padded) else "not bit-identical"
    print(f"\n{name}, alone against padded batches of {BATCH}: {difference:.1e}, {note}")
    assert difference <= TOLERANCE
