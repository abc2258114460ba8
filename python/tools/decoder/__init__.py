"""Writes decoder language models as graphs that can share a prefix.

Reading: `checkpoint` (a Hugging Face folder), `gguf_file` (llama.cpp's format),
`config` (what a checkpoint says of itself), `weights` (where its tensors lie).
Writing: `graph` (contract `rm-prefix/1`, described there), `rope`, `classic`
(what ordinary exporters write), `conversion` (to float32), `folder`,
`manifest`. Checking: `reference` (the same model in plain numpy), `session`
(ONNX Runtime), `parity` (the one against the other). `chat` renders
conversations; `random_weights` makes models for tests and measurements.
"""
