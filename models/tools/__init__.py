"""Builds the demo models, trains the heads of one and measures two; writes decoders as graphs.

Setup: `packages` (what is fetched, pinned), `virtual_environment`,
`onnxruntime_library`. Models: `relevance`, `minilm`, `harmless` and
`grammar`.
Training: `preference_data`, `dialogues`, `features`, `bradley_terry`,
`train_harmless`, `metrics`, `estimate_references`. Measuring:
`evaluate_harmless`, `evaluate_grammar`, `sample_answers`. Running: `demo` and
`server_process`. Decoders: the package `decoder`.
"""
