"""Raw ONNX Runtime in Python: the offline optimum, and the scores that servers must agree with.

A static plan knows every sample in advance: groups of similar length, the
longest first, pulled by as many sessions as the plan says.

    python -m loadtest.offline --graph FILE --workload FILE --sessions 2 --threads 1 --budget 512
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime

Row = tuple[list[int], list[int]]
Feed = dict[str, np.ndarray]


def open_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor, which computes on that many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def feed(rows: list[Row], names: list[str]) -> Feed:
    """The tensors of one forward pass, every row padded to the longest."""
    shape = (len(rows), max(len(ids) for ids, _ in rows))
    tensors = {name: np.zeros(shape, np.int64) for name in names}
    for index, (ids, type_ids) in enumerate(rows):
        values: dict[str, list[int] | int] = {"input_ids": ids, "attention_mask": 1, "token_type_ids": type_ids}
        for name in names:
            tensors[name][index, : len(ids)] = values[name]
    return tensors


def groups(rows: list[Row], budget: int) -> list[list[Row]]:
    """Rows of similar length together, up to `budget` positions; a longer row is alone."""
    rest = sorted(rows, key=lambda row: -len(row[0]))
    result = []
    while rest:
        count = max(1, budget // len(rest[0][0]))
        result.append(rest[:count])
        rest = rest[count:]
    return result


def read(workload: Path, count: int | None) -> list[Row]:
    """Token ids and type ids of the first `count` samples."""
    with workload.open() as lines:
        parsed = [json.loads(line) for line in itertools.islice(lines, count)]
    return [(sample["ids"], sample["type_ids"]) for sample in parsed]


def scores(graph: Path, rows: list[Row]) -> list[float]:
    """Each row alone: the mean of its logits."""
    session = open_session(graph, 1)
    names = [tensor.name for tensor in session.get_inputs()]
    return [float(session.run(None, feed([row], names))[0].mean()) for row in rows]


def measure(graph: Path, rows: list[Row], sessions: int, threads: int, budget: int) -> tuple[float, float]:
    """Seconds by the clock and of processor time for all rows, by one static plan."""
    pool = [open_session(graph, threads) for _ in range(sessions)]
    names = [tensor.name for tensor in pool[0].get_inputs()]
    feeds = [feed(group, names) for group in groups(rows, budget)]
    for session in pool:
        # The first pass of a session allocates what later ones reuse.
        for warm_up in feeds[:2]:
            session.run(None, warm_up)
    waiting = iter(feeds)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work(session: onnxruntime.InferenceSession) -> None:
        try:
            while True:
                with lock:
                    tensors = next(waiting, None)
                if tensors is None:
                    return
                session.run(None, tensors)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(session,)) for session in pool]
    started, used = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    elapsed, processor = time.perf_counter() - started, time.process_time() - used
    if failures:
        raise failures[0]
    return elapsed, processor


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Run a workload on raw sessions.")
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=int, default=1)
    arguments = parser.parse_args()
    rows = read(arguments.workload, arguments.samples)
    tokens = sum(len(ids) for ids, _ in rows)
    seconds, processor = measure(
        arguments.graph,
        rows,
        arguments.sessions,
        arguments.threads,
        arguments.budget,
    )
    report = {
        "seconds": seconds,
        "samples": len(rows),
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "cpu_seconds": processor,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
