"""Graphs whose products with weights compute in 8-bit integers, whatever company their samples have."""
