"""The parts of the GPU check, each a file, in the order in which they run: what everything stands on comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served
from tests.gpu.parts import (
    critiques,
    encoders,
    families,
    large,
    machine,
    memory,
    padded,
    parity,
    sharing,
)


@dataclass(frozen=True)
class Part:
    """Something that is measured by itself."""

    name: str
    # What it shows, for the help.
    shows: str
    # How long it may take on an H100, before it is cut.
    seconds: float
    run: Callable[[Kit, Table, Served | None], None]
    # The model that a server has while it runs; parts that follow each other share that server.
    served: str | None = None


PARTS = (
    Part("machine", "GPU, driver, whether the provider starts", 20.0, machine.run),
    Part("parity", "fp32 on the processor against the GPU; alone, together, shared", 65.0, parity.run),
    Part("minilm", "MiniLM-L12 shape, fp16, over HTTP", 60.0, encoders.minilm, "minilm-l12"),
    Part("llama-8b", "8 B shape, bf16, over HTTP; memory", 75.0, large.llama_8b, "llama-8b"),
    Part("sharing", "8 B: Best-of-N in a request, and as single requests", 25.0, sharing.run, "llama-8b"),
    Part("critiques", "8 B: writing, and scoring beside it", 40.0, critiques.run, "llama-8b-writer"),
    Part("families", "every recorded checkpoint against Transformers' scores", 60.0, families.run),
    Part("padded", "a graph that others exported, whose shapes are all new", 30.0, padded.run),
    Part("memory", "passes that the GPU's memory doesn't hold", 30.0, memory.run),
    Part("deberta", "DeBERTa-v3-base shape, fp16 in padded rows, over HTTP", 35.0, encoders.deberta, "deberta-v3-base"),
    Part(
        "modernbert",
        "ModernBERT-base shape, fp16 in padded rows, over HTTP",
        35.0,
        encoders.modernbert,
        "modernbert-base",
    ),
    Part("roberta", "RoBERTa-large shape, fp16, over HTTP", 35.0, encoders.roberta, "roberta-large"),
    Part("llama-1b", "1 B shape, bf16, over HTTP", 40.0, large.llama_1b, "llama-1b"),
)
