"""Small random models that see, and what Transformers and PyTorch make of images and texts.

    python -m tests.images.record_models     # with a Python that has torch, transformers, peft and Pillow 12

Each folder below `checkpoints/` is a checkpoint as `save_pretrained` writes it, with `scores.json`: prompts, images of
`tests/images`, and `logits_per_image` (or the classifier's logits) in 32 bits, with pixels by Pillow. Below `heads/`
lie heads over the embeddings of one of them, and below `adapters/` what PEFT saves, each with its scores. Parts that
are named are recorded alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.image_utils import load_image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

HERE = Path(__file__).parent
FOLDER = HERE / "checkpoints"
HEADS = HERE / "heads"
ADAPTERS = HERE / "adapters"
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
WIDTH = 10


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
            elif "layer_scale" in name or ("norm" in name and name.endswith("weight")):
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


def logits(model: Any, processor: Any) -> list[dict[str, Any]]:
    """What a classifier gives of every image."""
    cases = []
    with torch.no_grad():
        for file in IMAGES:
            pixels = processor(load_image(str(HERE / file)), return_tensors="pt")["pixel_values"]
            cases.append({"image": file, "logits": model(pixel_values=pixels).logits[0].tolist()})
    return cases


def clips() -> None:
    """CLIP, with both ways of saying which token is read."""
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    made = tokenizer("<start>", "<end>")
    end = made.token_to_id("<end>")
    for name, token in [("clip", end), ("clip-highest", 2)]:
        text = {**SMALL, "vocab_size": made.get_vocab_size(), "max_position_embeddings": 12, "eos_token_id": token}
        vision = {**SMALL, "hidden_size": 20, "image_size": SIDE, "patch_size": 8}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
        compare(name, transformers.CLIPModel(config), processor, made, None)


def siglip() -> None:
    """SigLIP."""
    made = tokenizer(None, "<end>")
    text = {**SMALL, "vocab_size": made.get_vocab_size(), "max_position_embeddings": 12, "pad_token_id": 0}
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8}
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    compare("siglip", transformers.SiglipModel(config), processor, made, 12)


def vit() -> None:
    """A ViT classifier."""
    settings = {**SMALL, "image_size": SIDE, "patch_size": 8, "qkv_bias": True, "num_labels": 3}
    settings.pop("initializer_factor")
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**settings))
    randomise(model)
    model.eval()
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    save("vit", model, processor, None, logits(model, processor))


def convnext() -> None:
    """A ConvNeXt classifier, whose processor takes the middle of a larger image."""
    config = transformers.ConvNextConfig(
        patch_size=2, hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 2, 1], image_size=SIDE, num_labels=3
    )
    model = transformers.ConvNextForImageClassification(config)
    randomise(model)
    model.eval()
    processor = ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.8)
    save("convnext", model, processor, None, logits(model, processor))


def convnextv2() -> None:
    """A ConvNeXt V2 classifier, which weighs channels by their norms."""
    config = transformers.ConvNextV2Config(
        patch_size=2, hidden_sizes=[4, 8, 12], depths=[1, 2, 1], num_stages=3, image_size=SIDE, num_labels=3
    )
    model = transformers.ConvNextV2ForImageClassification(config)
    randomise(model)
    model.eval()
    processor = ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.8)
    save("convnextv2", model, processor, None, logits(model, processor))


class Mlp(torch.nn.Module):  # type: ignore[misc]
    """Matrices under the places that their authors gave them, with what stands between."""

    def __init__(self, name: str, width: int, places: list[int], rectified: bool) -> None:
        """Of narrower layers than the published ones; `name` is what the sequence is called."""
        super().__init__()
        widths = [width, 12, 8, 6, 4, 1]
        steps: list[torch.nn.Module] = []
        for number, place in enumerate(places):
            while len(steps) < place:
                follows = isinstance(steps[-1], torch.nn.Linear)
                steps.append(torch.nn.ReLU() if rectified and follows else torch.nn.Dropout(0.2))
            steps.append(torch.nn.Linear(widths[number], widths[number + 1]))
        setattr(self, name, torch.nn.Sequential(*steps))
        self.name = name

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """A score for each."""
        scores: torch.Tensor = getattr(self, self.name)(embeddings)
        return scores


def embed(model: Any, processor: Any, file: str) -> torch.Tensor:
    """An image's embedding, normed."""
    pixels = processor(load_image(str(HERE / file)), return_tensors="pt")["pixel_values"]
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    projection = getattr(model, "visual_projection", None)
    embedding = projection(pooled) if projection else pooled
    normed: torch.Tensor = embedding / embedding.norm(dim=-1, keepdim=True)
    return normed


def heads() -> None:
    """Heads as they are published: LAION's matrix and MLPs, and that of Aesthetic Predictor V2.5."""
    clip = transformers.CLIPModel.from_pretrained(FOLDER / "clip").eval()
    pixels = CLIPImageProcessorPil.from_pretrained(FOLDER / "clip")
    siglip = transformers.SiglipModel.from_pretrained(FOLDER / "siglip").eval()
    others = SiglipImageProcessorPil.from_pretrained(FOLDER / "siglip")
    laion, rectified, later = [0, 2, 4, 6, 7], [0, 3, 6, 9, 11], [0, 2, 4, 6, 8]
    shutil.rmtree(HEADS, ignore_errors=True)
    for name, model, processor, head in [
        ("clip-linear", clip, pixels, torch.nn.Linear(WIDTH, 1)),
        ("clip-mlp", clip, pixels, Mlp("layers", WIDTH, laion, False)),
        ("clip-rectified", clip, pixels, Mlp("layers", WIDTH, rectified, True)),
        ("siglip-mlp", siglip, others, Mlp("scoring_head", SMALL["hidden_size"], later, False)),
    ]:
        folder = HEADS / name
        folder.mkdir(parents=True)
        torch.manual_seed(11)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(0.6 * torch.randn_like(parameter))
            head.eval()
            cases = [{"image": file, "score": head(embed(model, processor, file)).item()} for file in IMAGES]
        # As LAION saves them, and as the Hub prefers them.
        if name == "clip-mlp":
            save_file(head.state_dict(), folder / "value_head.safetensors")
        else:
            torch.save(head.state_dict(), folder / "value_head.pth")
        (folder / "scores.json").write_text(json.dumps(cases, indent=1) + "\n")


class AestheticsPredictorV2Linear(transformers.CLIPVisionModelWithProjection):  # type: ignore[misc]
    """LAION's MLP in one folder with the tower that it reads, under the class that such folders name."""

    def __init__(self, config: Any) -> None:
        """A tower and the layers over its embeddings."""
        super().__init__(config)
        self.layers = Mlp("layers", WIDTH, [0, 2, 4, 6, 7], False).layers
        self.post_init()


def aesthetics() -> None:
    """An aesthetic predictor as one checkpoint."""
    vision = {**SMALL, "hidden_size": 20, "image_size": SIDE, "patch_size": 8, "projection_dim": WIDTH}
    model = AestheticsPredictorV2Linear(transformers.CLIPVisionConfig(**vision))
    randomise(model)
    model.eval()
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    with torch.no_grad():
        cases = [{"image": file, "score": model.layers(embed(model, processor, file)).item()} for file in IMAGES]
    save("aesthetic", model, processor, None, cases)


def adapters() -> None:
    """What PEFT makes of a model that compares and of one that classifies, whose classifier is trained whole."""
    shutil.rmtree(ADAPTERS, ignore_errors=True)
    clip = transformers.CLIPModel.from_pretrained(FOLDER / "clip")
    targets = ["q_proj", "v_proj", "fc1", "visual_projection"]
    adapted = peft.get_peft_model(clip, peft.LoraConfig(r=2, lora_alpha=3, target_modules=targets))
    processor = CLIPImageProcessorPil.from_pretrained(FOLDER / "clip")
    made = Tokenizer.from_file(str(FOLDER / "clip" / "tokenizer.json"))
    prepare(adapted)
    cases: list[dict[str, Any]] = []
    with torch.no_grad():
        for file in IMAGES:
            pixels = processor(load_image(str(HERE / file)), return_tensors="pt")["pixel_values"]
            given = adapted(input_ids=torch.tensor([made.encode(PROMPTS[1]).ids]), pixel_values=pixels)
            cases.append({"prompt": PROMPTS[1], "image": file, "score": given.logits_per_image.item()})
    save_adapter("clip-lora", "clip", adapted, cases)
    for name, targets, processor in [
        ("convnext", ["pwconv1", "pwconv2"], ConvNextImageProcessorPil.from_pretrained(FOLDER / "convnext")),
        ("vit", ["q_proj", "v_proj", "o_proj", "fc1", "fc2"], ViTImageProcessorPil.from_pretrained(FOLDER / "vit")),
    ]:
        model = transformers.AutoModelForImageClassification.from_pretrained(FOLDER / name)
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, modules_to_save=["classifier"])
        adapted = peft.get_peft_model(model, config)
        prepare(adapted)
        save_adapter(f"{name}-lora", name, adapted, logits(adapted, processor))


def prepare(adapted: Any) -> None:
    """Weights that matter, of what was added."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    adapted.eval()


def save_adapter(name: str, base: str, adapted: Any, cases: list[dict[str, Any]]) -> None:
    """An adapter's folder, which names its base by the folder beside it."""
    folder = ADAPTERS / name
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "scores.json").write_text(json.dumps(cases, indent=1) + "\n")


def main() -> None:
    """Every folder, or those of the parts that are named."""
    parts: list[Callable[[], None]] = [clips, siglip, vit, convnext, convnextv2, heads, aesthetics, adapters]
    named = sys.argv[1:]
    for part in parts:
        if not named or part.__name__ in named:
            part()


if __name__ == "__main__":
    main()
