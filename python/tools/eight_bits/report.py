"""What 8 bits do to scores and to the time that they take."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import onnx
import onnxruntime

from tools.half_precision import Parity

ROUNDS = 3


@dataclass(frozen=True)
class Report:
    """How a graph in 8 bits differs from the one in fp32."""

    parity: Parity
    # Its processor time over fp32's, text by text.
    time_ratio: float
    # The same of texts that share their beginning, and how far a score moves by what it shares rows with and by where
    # rows are cut: of decoders.
    shared_time_ratio: float | None = None
    company_difference: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the conversion may be used."""
        return self.parity.holds and not self.company_difference

    def to_json(self) -> str:
        """The report as `precision.json` has it."""
        told = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps({"precision": "int8", **told.pop("parity"), **told}, indent=1) + "\n"

    def to_text(self) -> str:
        """The same in a line."""
        parity = self.parity
        text = (
            f"{self.time_ratio:.2f} of the time; largest difference {parity.largest_difference:.2e}, mean "
            f"{parity.mean_difference:.2e}, {parity.swapped_pairs} of {parity.clear_pairs} clear pairs "
            f"swapped on {parity.samples} real samples"
        )
        if self.shared_time_ratio is None:
            return text
        company = f"which moves scores by {self.company_difference:.1e}"
        return f"{text}; {self.shared_time_ratio:.2f} of the time in company, {company}"


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on one thread, whose processor time is the graph's alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def time_ratio(run: Callable[[int], object]) -> float:
    """The processor time of the second of two graphs over the first one's: the median of a few rounds in turns."""
    ratios = []
    for _ in range(ROUNDS):
        taken = []
        for number in range(2):
            started = time.process_time()
            run(number)
            taken.append(time.process_time() - started)
        ratios.append(taken[1] / taken[0])
    return statistics.median(ratios)
