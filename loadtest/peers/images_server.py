"""The image scorer that people write today: FastAPI, Transformers and Pillow, batches in arrival order.

`--write FOLDER` writes the random checkpoint that both servers are measured with, in CLIP's shape.

    PYTHON -m loadtest.peers.images_server --model FOLDER --port 8081   # with torch, transformers, Pillow and fastapi
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import torch
import transformers
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageOps
from pydantic import BaseModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

FILL_SECONDS = 0.005
WORDS = 1000
SIDE = 224


class ScoreRequest(BaseModel):
    """A prompt and an image in base64."""

    prompt: str
    image: str


def write(folder: Path) -> None:
    """A random checkpoint of the shape of CLIP ViT-B/32, but for its few words."""
    tokens = ["<pad>", "<unk>", "<start>", *(f"w{number}" for number in range(WORDS)), "<end>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(token, vocabulary[token]) for token in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=special)
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config={"vocab_size": len(tokens), "eos_token_id": vocabulary["<end>"]})
    transformers.CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "model_max_length": 77}))


class Scorer:
    """Scores one batch at a time."""

    def __init__(self, folder: Path) -> None:
        self._model = transformers.CLIPModel.from_pretrained(folder).eval()
        self._processor = CLIPImageProcessorPil.from_pretrained(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_padding(pad_id=0, pad_token="<pad>")  # noqa: S106 - a token of the vocabulary

    def __call__(self, batch: list[ScoreRequest]) -> list[float]:
        """The score of each input: what its image and its prompt give in `logits_per_image`."""
        images = [Image.open(io.BytesIO(base64.b64decode(one.image))) for one in batch]
        upright = [ImageOps.exif_transpose(image).convert("RGB") for image in images]
        encodings = self._tokenizer.encode_batch([one.prompt for one in batch])
        with torch.inference_mode():
            given = self._model(
                input_ids=torch.tensor([encoding.ids for encoding in encodings]),
                attention_mask=torch.tensor([encoding.attention_mask for encoding in encodings]),
                pixel_values=self._processor(upright, return_tensors="pt")["pixel_values"],
            )
        return given.logits_per_image.diagonal().tolist()


def application(scorer: Scorer, max_batch: int) -> FastAPI:
    """The routes, and the task that forms batches."""
    queue: asyncio.Queue[tuple[ScoreRequest, asyncio.Future[float]]] = asyncio.Queue()
    pool = ThreadPoolExecutor(1)

    async def serve() -> None:
        while True:
            waiting = [await queue.get()]
            await asyncio.sleep(FILL_SECONDS)
            while len(waiting) < max_batch and not queue.empty():
                waiting.append(queue.get_nowait())
            batch = [request for request, _ in waiting]
            scores = await asyncio.get_running_loop().run_in_executor(pool, scorer, batch)
            for (_, future), score in zip(waiting, scores, strict=True):
                future.set_result(score)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(serve())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/score")
    async def score(request: ScoreRequest) -> dict[str, float]:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        await queue.put((request, future))
        return {"score": await future}

    return app


def main() -> None:
    """Serves, or writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--max-batch", type=int, default=8)
    given = parser.parse_args()
    if given.write:
        write(given.write)
    else:
        uvicorn.run(application(Scorer(given.model), given.max_batch), port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
