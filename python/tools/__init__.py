"""Builds the demo models, trains heads, measures models, and turns GGUF files into checkpoints.

Setup: `packages` (what is fetched, pinned) and `onnxruntime_library`.
Models: `relevance`, `minilm`, `harmless`, `grammar` and `smollm2`, written with
`onnx_graph` and `onnx_file`. Decoders: the package `gguf`, a command too, and
`random_llama`, for tests and measurements, written with `safetensors_file` and
`link_file`.
Training: `preference_data`, `dialogues`, `features`, `bradley_terry`,
`chat`, `train_harmless`, `train_smol_reward`, `metrics`, `estimate_references`.
Measuring: `evaluate_harmless`, `evaluate_grammar`, `evaluate_likelihood`,
`sample_answers`. Comparing: `reference`. Running: `demo` and `server_process`.
"""
