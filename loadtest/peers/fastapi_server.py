"""The scoring server that people write today: FastAPI, a queue, padded batches in arrival order.

`--max-batch 32` waits a few milliseconds to fill a batch, `--max-batch 8` is the
same with the smaller queue that many servers default to, `--max-batch 1` doesn't
batch at all. ONNX Runtime has its own defaults: one session, a thread a core.

    python -m loadtest.peers.fastapi_server --model models/relevance --port 8081
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

FILL_SECONDS = 0.005


class Input(BaseModel):
    """One prompt with one response."""

    prompt: str
    response: str


class ScoreRequest(BaseModel):
    """What is sent."""

    inputs: list[Input]


class ScoreResponse(BaseModel):
    """The mean of the model's logits for each input."""

    scores: list[float]


class Scorer:
    """Tokenises and scores one batch at a time."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.enable_padding()
        self._session = onnxruntime.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]

    def __call__(self, batch: list[Input]) -> list[float]:
        """The score of each input."""
        encodings = self._tokenizer.encode_batch([(one.prompt, one.response) for one in batch])
        tensors = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
        }
        (logits,) = self._session.run(None, {name: tensors[name] for name in self._inputs})
        return logits.reshape(len(batch), -1).mean(axis=1).tolist()


class Batcher:
    """Takes what arrived, in that order, until the batch is full or a few milliseconds passed."""

    def __init__(self, scorer: Scorer, max_batch: int) -> None:
        self._scorer = scorer
        self._max_batch = max_batch
        self._queue: asyncio.Queue[tuple[Input, asyncio.Future[float]]] = asyncio.Queue()

    async def score(self, one: Input) -> float:
        """Waits for the batch that this input becomes part of."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        await self._queue.put((one, future))
        return await future

    async def run(self) -> None:
        """Runs batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            while True:
                batch = await self._next_batch()
                inputs = [one for one, _ in batch]
                try:
                    scores = await loop.run_in_executor(pool, self._scorer, inputs)
                except Exception as error:
                    for _, future in batch:
                        if not future.cancelled():
                            future.set_exception(error)
                else:
                    for (_, future), score in zip(batch, scores, strict=True):
                        if not future.cancelled():
                            future.set_result(score)

    async def _next_batch(self) -> list[tuple[Input, asyncio.Future[float]]]:
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + FILL_SECONDS
        while len(batch) < self._max_batch:
            left = deadline - asyncio.get_running_loop().time()
            try:
                batch.append(self._queue.get_nowait() if left <= 0 else await asyncio.wait_for(self._queue.get(), left))
            except (asyncio.QueueEmpty, TimeoutError):
                break
        return batch


def build(model: Path, max_batch: int) -> FastAPI:
    """The application for one model."""
    batcher = Batcher(Scorer(model), max_batch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()

    application = FastAPI(lifespan=lifespan)

    @application.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @application.post("/score")
    async def score(request: ScoreRequest) -> ScoreResponse:
        scores = await asyncio.gather(*(batcher.score(one) for one in request.inputs))
        return ScoreResponse(scores=scores)

    return application


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Serve a model the usual way.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-batch", type=int, default=32)
    arguments = parser.parse_args()
    uvicorn.run(
        build(arguments.model, arguments.max_batch),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        # Kept-alive connections outlast the pauses between measurements.
        timeout_keep_alive=600,
    )


if __name__ == "__main__":
    main()
