"""Small random models that see, and what Transformers makes of images and texts.

    python -m tests.images.record_models     # with a Python that has torch, transformers and Pillow 12

Each folder below `checkpoints/` is a checkpoint as `save_pretrained` writes it, with `scores.json`: prompts, images of
`tests/images`, and `logits_per_image` (or the classifier's logits) in 32 bits, with pixels by Pillow.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.image_utils import load_image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

HERE = Path(__file__).parent
FOLDER = HERE / "checkpoints"
WORDS = ["a", "an", "the", "cat", "dog", "house", "red", "green", "blue", "small", "of", "with", "on", "drawing"]
PROMPTS = ["a red cat", "the small blue house with a dog", "drawing of an elephant"]
IMAGES = ["rgb.png", "rgba.png", "full.jpg", "halved.jpg", "moving.gif", "lossy.webp", "turned6.jpg", "wide.png"]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "initializer_factor": 3.0,
}
SIDE = 32


def tokenizer(beginning: str | None, end: str) -> Tokenizer:
    """Words, with special tokens around a text; the end's id is the highest."""
    tokens = ["<pad>", "<unk>", *([beginning] if beginning else []), *WORDS, end]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    single = f"{beginning} $A {end}" if beginning else f"$A {end}"
    special = [(token, vocabulary[token]) for token in [beginning, end] if token]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return made


def randomise(model: torch.nn.Module) -> None:
    """Weights that are far from what a fresh model has, so that no part of it is idle."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(1.7)
            elif name == "logit_bias":
                parameter.fill_(-2.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.15 * torch.randn_like(parameter))


def save(name: str, model: Any, processor: Any, made: Tokenizer | None, cases: list[dict[str, Any]]) -> None:
    """A checkpoint's folder, with its scores."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if made:
        made.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "model_max_length": 12}) + "\n")
    (folder / "scores.json").write_text(json.dumps(cases, indent=1) + "\n")


def compare(name: str, model: Any, processor: Any, made: Tokenizer, filled: int | None) -> None:
    """Scores of every image for every prompt."""
    randomise(model)
    model.eval()
    cases = []
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = made.encode(prompt).ids
            ids += [0] * (filled - len(ids)) if filled else []
            for file in IMAGES:
                pixels = processor(load_image(str(HERE / file)), return_tensors="pt")["pixel_values"]
                given = model(input_ids=torch.tensor([ids]), pixel_values=pixels)
                cases.append({"prompt": prompt, "image": file, "score": given.logits_per_image.item()})
    save(name, model, processor, made, cases)


def main() -> None:
    """Every folder."""
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    made = tokenizer("<start>", "<end>")
    end = made.token_to_id("<end>")
    for name, token in [("clip", end), ("clip-highest", 2)]:
        text = {**SMALL, "vocab_size": made.get_vocab_size(), "max_position_embeddings": 12, "eos_token_id": token}
        vision = {**SMALL, "hidden_size": 20, "image_size": SIDE, "patch_size": 8}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
        compare(name, transformers.CLIPModel(config), processor, made, None)
    made = tokenizer(None, "<end>")
    text = {**SMALL, "vocab_size": made.get_vocab_size(), "max_position_embeddings": 12, "pad_token_id": 0}
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8}
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    compare("siglip", transformers.SiglipModel(config), SiglipImageProcessorPil(size=size), made, 12)
    settings = {**SMALL, "image_size": SIDE, "patch_size": 8, "qkv_bias": True, "num_labels": 3}
    settings.pop("initializer_factor")
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**settings))
    randomise(model)
    model.eval()
    vit = ViTImageProcessorPil(size=size)
    cases = []
    with torch.no_grad():
        for file in IMAGES:
            logits = model(pixel_values=vit(load_image(str(HERE / file)), return_tensors="pt")["pixel_values"]).logits
            cases.append({"image": file, "logits": logits[0].tolist()})
    save("vit", model, vit, None, cases)


if __name__ == "__main__":
    main()
