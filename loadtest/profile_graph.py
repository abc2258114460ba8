"""Where the time of a pass goes, operator by operator, and which of several graphs is the faster one.

    cargo run -p karat-checkpoint --example onnx FOLDER FILE.onnx
    python -m loadtest.profile_graph FILE.onnx [OTHER.onnx …] [--shapes 1024x16x32,0x1x64] [--known] [--threads 1]

A shape of a decoder is PROMPTxCANDIDATESxRESPONSE, in tokens, computed in the
rows that karat cuts: the prompt first, then as many candidates as fill a row
behind it. With `--known` the prompt was computed before, and 100x1x1 is a token
that is written behind 100. One of an encoder is TEXTSxTOKENS. Graphs are run in
turns, so that what else the machine does meets all of them: a figure is the
median over the rounds, a ratio the median of the rounds' ratios to the first
graph. On one thread it is processor time, which hardly changes on a busy
machine; of an operator it is the shortest time of all rounds, by the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Feed = dict[str, np.ndarray]

# What is added where a token may not look.
UNSEEN = np.float32(-1e9)
SEED = 9


@dataclass(frozen=True)
class Pass:
    """What one run of a graph is fed, and the outputs that are asked for; all of them where there are none."""

    feed: Feed
    outputs: list[str] | None


@dataclass
class Node:
    """An operator's place in the graph: what it is, its shortest run, and its floating-point operations where known."""

    kind: str
    milliseconds: float = math.inf
    operations: float = 0.0


class Nodes:
    """The nodes of so many passes, run in the same order again and again, as ONNX Runtime's profile tells of them."""

    def __init__(self, passes: int) -> None:
        self._passes = passes
        self._seen: dict[str, int] = defaultdict(int)
        self._nodes: dict[tuple[str, int], Node] = {}

    def add(self, event: dict[str, Any]) -> None:
        """Adds a line of the profile, if it is of an operator's run."""
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            return
        told = event["args"]
        name = event["name"]
        node = self._nodes.setdefault((name, self._seen[name] % self._passes), Node(told["op_name"]))
        self._seen[name] += 1
        node.milliseconds = min(node.milliseconds, event["dur"] / 1e3)
        if node.kind in ("Gemm", "FusedGemm"):
            inner = _shape(told["input_type_shape"][0])[-1]
            node.operations = 2.0 * inner * float(np.prod(_shape(told["output_type_shape"][0])))

    def lines(self) -> list[str]:
        """A table of the kinds of operators, the longest first."""
        kinds: dict[str, list[Node]] = defaultdict(list)
        for node in self._nodes.values():
            kinds[node.kind].append(node)
        spent = {kind: sum(node.milliseconds for node in nodes) for kind, nodes in kinds.items()}
        whole = sum(spent.values())
        rows = ["| operator | nodes | ms | share | GFLOP/s |", "|---|---|---|---|---|"]
        for kind in sorted(kinds, key=lambda kind: -spent[kind]):
            operations = sum(node.operations for node in kinds[kind])
            rate = f"{operations / spent[kind] / 1e6:.0f}" if operations else ""
            rows.append(f"| {kind} | {len(kinds[kind])} | {spent[kind]:.2f} | {spent[kind] / whole:.3f} | {rate} |")
        return rows


def _shape(described: dict[str, list[int]]) -> list[int]:
    return next(iter(described.values()))


def open_session(graph: Path, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """A session as karat opens it on the processor; with `profile`, one that tells where its time goes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


class Decoder:
    """The rows of a graph that follows the contract `rm-prefix/1`."""

    def __init__(self, session: onnxruntime.InferenceSession, row: int) -> None:
        told = session.get_modelmeta().custom_metadata_map
        self._row = row
        self._heads, self._size = int(told["karat.kv_heads"]), int(told["karat.head_dim"])
        self._inputs = [tensor.name for tensor in session.get_inputs()]
        self._outputs = [tensor.name for tensor in session.get_outputs()]
        self._random = np.random.default_rng(SEED)

    def passes(self, prompt: int, candidates: int, response: int, known: bool) -> list[Pass]:
        """The prompt row by row, each giving its keys and values out, unless it is known; then the candidates."""
        passes = []
        for start in range(0, 0 if known else prompt, self._row):
            new = min(self._row, prompt - start)
            passes.append(self._pass(start, [new], keeps=True))
        together = max(1, self._row // response) if response else 1
        for start in range(0, candidates, together):
            spans = [response] * min(together, candidates - start)
            passes.append(self._pass(prompt, spans, keeps=False))
        return passes

    def _pass(self, past: int, spans: list[int], keeps: bool) -> Pass:
        new = sum(spans)
        bias = np.full((1, 1, new, past + new), UNSEEN)
        bias[..., :past] = 0.0
        start = 0
        for span in spans:
            own = np.triu(np.full((span, span), UNSEEN), 1)
            bias[..., start : start + span, past + start : past + start + span] = own
            start += span
        positions = np.concatenate([np.arange(past, past + span) for span in spans])
        # Something is always read: ONNX Runtime divides by how much that is.
        reads = np.cumsum(spans) - 1
        feed = {
            "input_ids": self._random.integers(1, 1000, (1, new)),
            "position_ids": positions[None],
            "attn_bias": bias,
            "score_positions": reads.astype(np.int64),
            "key_position_ids": np.concatenate([np.arange(past), positions])[None],
        }
        for name in self._inputs:
            if name.startswith("past_key_values."):
                feed[name] = self._random.standard_normal((1, self._heads, past, self._size), np.float32)
        read = [name for name in self._outputs if not name.startswith("present.")][:1]
        given = [name for name in self._outputs if name.startswith("present.")] if keeps else []
        return Pass({name: feed[name] for name in self._inputs}, read + given)


def encoder_pass(session: onnxruntime.InferenceSession, texts: int, tokens: int) -> Pass:
    """One padded batch, the last text a quarter shorter than the first."""
    random = np.random.default_rng(SEED)
    lengths = np.linspace(tokens, tokens * (0.75 if texts > 1 else 1.0), texts).astype(int)
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    feed = {
        "input_ids": random.integers(1000, 2000, (texts, tokens)) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros((texts, tokens), np.int64),
    }
    return Pass({tensor.name: feed[tensor.name] for tensor in session.get_inputs()}, None)


def passes_of(session: onnxruntime.InferenceSession, shape: list[int], arguments: argparse.Namespace) -> list[Pass]:
    """What one shape asks of a graph. Raises SystemExit where the graph has no such shapes."""
    match shape:
        case [prompt, candidates, response]:
            return Decoder(session, arguments.row).passes(prompt, candidates, response, arguments.known)
        case [texts, tokens]:
            return [encoder_pass(session, texts, tokens)]
        case _:
            raise SystemExit("a shape has three numbers for a decoder, and two for an encoder")


def runner(session: onnxruntime.InferenceSession, passes: list[Pass]) -> Callable[[], np.ndarray]:
    """Runs all passes; gives the last one's first output."""

    def run() -> np.ndarray:
        return [session.run(each.outputs, each.feed)[0] for each in passes][-1]

    return run


def compare(graphs: list[Path], shape: list[int], arguments: argparse.Namespace) -> None:
    """Prints how long each graph takes for a shape, and how far its numbers are from the first one's."""
    sessions = [open_session(graph, arguments.threads) for graph in graphs]
    runs = [runner(session, passes_of(session, shape, arguments)) for session in sessions]
    first = runs[0]()
    differences = [float(np.abs(run() - first).max(initial=0.0)) for run in runs]
    seconds: list[list[float]] = [[] for _ in graphs]
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    for number in range(arguments.rounds):
        # Every other round the other way round: who comes second finds caches that the first one left.
        for index in range(len(graphs))[:: 1 if number % 2 == 0 else -1]:
            started = clock()
            runs[index]()
            seconds[index].append(clock() - started)
    for index, graph in enumerate(graphs):
        ratio = statistics.median(mine / base for mine, base in zip(seconds[index], seconds[0], strict=True))
        took = statistics.median(seconds[index]) * 1e3
        print(f"| {graph.name} | {'x'.join(map(str, shape))} | {took:.1f} | {ratio:.3f} | {differences[index]:.1e} |")


def profile(graph: Path, shape: list[int], arguments: argparse.Namespace) -> None:
    """Prints where the time of a shape goes."""
    with tempfile.TemporaryDirectory() as scratch:
        session = open_session(graph, arguments.threads, Path(scratch) / "profile")
        passes = passes_of(session, shape, arguments)
        run = runner(session, passes)
        for _ in range(arguments.rounds):
            run()
        nodes = Nodes(len(passes))
        for event in json.loads(Path(session.end_profiling()).read_text()):
            nodes.add(event)
    print(f"\n{graph.name}, {'x'.join(map(str, shape))}:\n")
    print("\n".join(nodes.lines()))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Tell where the time of a pass goes.")
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--shapes", default="1024x16x32")
    parser.add_argument("--known", action="store_true", help="leave a decoder's prompt out: it was computed before")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--row", type=int, default=256, help="how many tokens a decoder's row has")
    arguments = parser.parse_args()
    shapes = [[int(size) for size in shape.split("x")] for shape in arguments.shapes.split(",")]
    print("| graph | shape | ms | ratio | largest difference |\n|---|---|---|---|---|")
    for shape in shapes:
        compare(arguments.graphs, shape, arguments)
    for shape in shapes:
        for graph in arguments.graphs:
            profile(graph, shape, arguments)


if __name__ == "__main__":
    main()
