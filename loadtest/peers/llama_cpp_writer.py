"""llama.cpp writing texts: run by `loadtest/generation.py` in an environment that has llama-cpp-python.

Reads one JSON object a line and answers with one: `{"prompts": [[token, ...], ...], "tokens": n}` gives
`{"seconds": s, "texts": [[token, ...], ...]}`, the likeliest tokens behind each prompt, all prompts side by side. A
text ends at the model's end-of-generation token.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp

CONTEXT = 8192
STREAMS = 8
BATCH = 512


def single_precision(gguf: Path, output: Path) -> None:
    """Writes the same weights in single precision; raises SystemExit where llama.cpp refuses."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    parameters.allow_requantize = True
    partial = output.with_suffix(".partial")
    if llama_cpp.llama_model_quantize(str(gguf).encode(), str(partial).encode(), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"llama.cpp could not convert {gguf}")
    partial.rename(output)


class Writer:
    """One model with room for several texts."""

    def __init__(self, gguf: Path, threads: int) -> None:
        self._model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_seq_max = CONTEXT, BATCH, STREAMS
        parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise SystemExit(f"llama.cpp could not load {gguf}")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._words = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        sampler = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        llama_cpp.llama_sampler_chain_add(sampler, llama_cpp.llama_sampler_init_greedy())
        self._greedy = sampler
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def write(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """The texts behind the prompts."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        texts: list[list[int]] = [[] for _ in prompts]
        going: dict[int, int] = {}
        pieces = [
            (stream, position, token, position == len(prompt) - 1)
            for stream, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        for start in range(0, len(pieces), BATCH):
            going |= self._decode(pieces[start : start + BATCH])
        while going:
            pieces = []
            for stream, token in going.items():
                if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
                    continue
                texts[stream].append(token)
                if len(texts[stream]) < tokens:
                    pieces.append((stream, len(prompts[stream]) + len(texts[stream]) - 1, token, True))
            going = self._decode(pieces) if pieces else {}
        return texts

    def _decode(self, pieces: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Computes tokens of `(stream, position, token, read)`; the likeliest token after each that is read."""
        batch = self._batch
        batch.n_tokens = len(pieces)
        for index, (stream, position, token, read) in enumerate(pieces):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, read
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, stream
        if llama_cpp.llama_decode(self._context, batch) != 0:
            raise SystemExit("llama.cpp could not compute a batch")
        return {
            stream: llama_cpp.llama_sampler_sample(self._greedy, self._context, index)
            for index, (stream, _, _, read) in enumerate(pieces)
            if read
        }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write texts with llama.cpp.")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="for the weights in single precision")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    converted = arguments.scratch / f"{arguments.gguf.stem}.f32.gguf"
    if not converted.exists():
        single_precision(arguments.gguf, converted)
    writer = Writer(converted, arguments.threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        texts = writer.write(request["prompts"], request["tokens"])
        print(json.dumps({"seconds": time.perf_counter() - started, "texts": texts}), flush=True)


if __name__ == "__main__":
    main()
