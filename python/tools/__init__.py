"""Builds the demo models, trains heads, measures models, and writes decoders as graphs.

Setup: `packages` (what is fetched, pinned) and `onnxruntime_library`.
Models: `relevance`, `minilm`, `harmless`, `grammar` and `smollm2`, written with
`onnx_graph` and `onnx_file`. Decoders: `export`, the command, and the package
`decoder`.
Training: `preference_data`, `dialogues`, `features`, `bradley_terry`,
`train_harmless`, `train_smol_reward`, `metrics`, `estimate_references`.
Measuring: `evaluate_harmless`, `evaluate_grammar`, `evaluate_likelihood`,
`sample_answers`. Comparing: `reference`. Running: `demo` and `server_process`.
"""
