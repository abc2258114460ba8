"""Turns a GGUF file, llama.cpp's format, into a Hugging Face checkpoint folder, which karat serves.

    .venv/bin/python -m tools.gguf FILE.gguf FOLDER

`configuration` says what `config.json` becomes, `tensors` which weights there
are and under which names, `tokenizer` how text falls into tokens; `checkpoint`
puts them together. What can't be converted faithfully is refused.
"""
