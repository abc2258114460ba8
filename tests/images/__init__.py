"""Small images of every kind that karat reads, with what Pillow and Transformers' image processors make of them."""
