"""The image scorer that people write today: FastAPI, Transformers and Pillow, batches in arrival order.

Images are decoded and prepared with their batch, as an image processor takes a list of them, or with `--threads` one by
one as they arrive, on all cores, while the model computes. `--max-batch 1` forms no batches.

`--write FOLDER` writes the random checkpoint that all servers are measured with, in CLIP's shape. `--alone IMAGES`
serves nothing: the model computes so many images that are prepared already, batch after batch, and their number a
second is printed: about what a server could give that did nothing else.

    PYTHON -m loadtest.peers.images_server --model FOLDER --port 8081   # with torch, transformers, Pillow and fastapi
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import time
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

    def prepare(self, images: list[str]) -> torch.Tensor:
        """The pixels of images in base64."""
        opened = [Image.open(io.BytesIO(base64.b64decode(image))) for image in images]
        upright = [ImageOps.exif_transpose(image).convert("RGB") for image in opened]
        pixels: torch.Tensor = self._processor(upright, return_tensors="pt")["pixel_values"]
        return pixels

    def score(self, prompts: list[str], pixels: torch.Tensor) -> list[float]:
        """The score of each input: what its image and its prompt give in `logits_per_image`."""
        encodings = self._tokenizer.encode_batch(prompts)
        with torch.inference_mode():
            given = self._model(
                input_ids=torch.tensor([encoding.ids for encoding in encodings]),
                attention_mask=torch.tensor([encoding.attention_mask for encoding in encodings]),
                pixel_values=pixels,
            )
        scores: list[float] = given.logits_per_image.diagonal().tolist()
        return scores


def application(scorer: Scorer, max_batch: int, threads: int) -> FastAPI:
    """The routes, and the task that forms batches; without `threads` images are prepared with their batch."""
    queue: asyncio.Queue[tuple[ScoreRequest, torch.Tensor | None, asyncio.Future[float]]] = asyncio.Queue()
    pool = ThreadPoolExecutor(1)
    preparing = ThreadPoolExecutor(max(threads, 1))

    def compute(prompts: list[str], images: list[str], prepared: list[torch.Tensor]) -> list[float]:
        return scorer.score(prompts, torch.cat(prepared) if prepared else scorer.prepare(images))

    async def serve() -> None:
        while True:
            waiting = [await queue.get()]
            await asyncio.sleep(FILL_SECONDS)
            while len(waiting) < max_batch and not queue.empty():
                waiting.append(queue.get_nowait())
            prompts, images = [one.prompt for one, *_ in waiting], [one.image for one, *_ in waiting]
            prepared = [pixels for _, pixels, _ in waiting if pixels is not None]
            scores = await asyncio.get_running_loop().run_in_executor(pool, compute, prompts, images, prepared)
            for (*_, future), score in zip(waiting, scores, strict=True):
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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        pixels = await loop.run_in_executor(preparing, scorer.prepare, [request.image]) if threads else None
        await queue.put((request, pixels, future))
        return {"score": await future}

    return app


def alone(scorer: Scorer, images: int, max_batch: int) -> float:
    """Images a second of the model by itself, with a prompt for each image as in what servers are asked."""
    pixels = torch.zeros(max_batch, 3, SIDE, SIDE)
    prompts = ["w1 w2 w7"] * max_batch
    scorer.score(prompts, pixels)
    batches = -(-images // max_batch)
    started = time.perf_counter()
    for _ in range(batches):
        scorer.score(prompts, pixels)
    return batches * max_batch / (time.perf_counter() - started)


def main() -> None:
    """Serves, writes the checkpoint, or computes by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--alone", type=int, metavar="IMAGES", help="serve nothing; print images a second of the model")
    parser.add_argument("--threads", action="store_true", help="prepare images as they arrive, on all cores")
    given = parser.parse_args()
    if given.write:
        write(given.write)
    elif given.alone:
        print(alone(Scorer(given.model), given.alone, given.max_batch))
    else:
        threads = os.cpu_count() or 1 if given.threads else 0
        app = application(Scorer(given.model), given.max_batch, threads)
        uvicorn.run(app, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
