"""Writes decoder language models as graphs that can share a prefix.

`config` reads what a checkpoint says of itself, `weights` where its tensors
lie, `rope` turns positions into rotations. `graph` writes the graph whose keys
and values can be kept (contract `rm-prefix/1`, described there), `classic` the
one that ordinary exporters write. `reference` computes the same model in plain
numpy, and `parity` compares the two.
"""
