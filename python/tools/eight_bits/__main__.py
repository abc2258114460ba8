"""Converts a model folder to 8-bit products for processors, and says what that does to its scores.

    python -m tools.eight_bits --model models/relevance --output FOLDER
    cargo run --release -p karat-checkpoint --example onnx CHECKPOINT FILE.onnx
    python -m tools.eight_bits --model CHECKPOINT --graph FILE.onnx --output FOLDER

Weights have a scale for each column, and activations one for each row, so that a
text's score doesn't depend on its neighbours or on padding, to the last bit. Of a
decoder, whose texts lie in rows anywhere, attention's sums don't depend on where.

`precision.json` in the new folder holds the differences from fp32 on real
answers, and how long those take in 8 bits against fp32 on one thread; of a
decoder alone and in company, with what company changes.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import onnx

from tools.eight_bits import decoders, encoders
from tools.eight_bits.products import Converter
from tools.eight_bits.report import Report
from tools.eight_bits.sizes import Watched
from tools.eight_bits.sums import steadied
from tools.onnx_file import write_model

# How far a score may move unless somebody says otherwise, in standard deviations of scores.
TOLERANCE = 0.1
# What a tokenizer consists of, and what a model is.
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json", "model.toml")


def convert(model_folder: Path, graph: Path, output: Path, cache: Path, tolerance: float) -> Report:
    """Writes the new folder if the scores hold; returns what became of them. `tolerance` is in standard deviations."""
    if not graph.is_file():
        raise SystemExit(f"there is no {graph}: only graphs in ONNX files are converted")
    original = onnx.load(graph)
    is_decoder = any(entry.key == "karat.contract" for entry in original.metadata_props)
    kind = decoders if is_decoder else encoders
    watched = Watched(original, Converter(original).read())
    kind.measure(watched, model_folder, cache)
    converted = Converter(original, watched.largest).convert()
    if is_decoder:
        converted = steadied(converted)
    report = kind.compare(original, converted, model_folder, cache, tolerance)
    if not report.holds:
        return report
    output.mkdir(parents=True, exist_ok=True)
    write_model(converted, output / "model.onnx")
    for name in filter(lambda name: (model_folder / name).is_file(), FILES):
        shutil.copyfile(model_folder / name, output / name)
    manifest = output / "model.toml"
    manifest.write_text(re.sub(r"^checkpoint = .*$", 'file = "model.onnx"', manifest.read_text(), flags=re.MULTILINE))
    (output / "precision.json").write_text(report.to_json())
    return report


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Convert a model folder to 8-bit products.")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--graph", type=Path, help="its graph; model.onnx in the folder if there is no other")
    parser.add_argument("--output", type=Path, required=True, help="the new folder")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="how far a score may move, in standard deviations of scores"
    )
    arguments = parser.parse_args()
    graph = arguments.graph or arguments.model / "model.onnx"
    report = convert(arguments.model, graph, arguments.output, arguments.cache, arguments.tolerance)
    print(f"{arguments.output}: {report.to_text()}")
    if not report.holds:
        bound = f"{report.parity.tolerance:.2e}"
        raise SystemExit(f"nothing was written: scores differ by more than {bound} or by company, or orders change")


if __name__ == "__main__":
    main()
