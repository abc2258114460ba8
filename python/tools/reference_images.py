"""What Transformers makes of images: `tools.reference` for models that see.

Pixels are made by the checkpoint's own image processor with Pillow, to which karat's are held. It is Pillow 12: later
versions resize some images in another order, which moves a pixel here and there by one.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.reference import Case, Manifest

COMPARING = ("clip", "siglip")
TOWERS = ("clip_vision_model", "siglip_vision_model")
CLASSIFIERS = ("vit", "convnext", "convnextv2")
SEEING = (*COMPARING, *TOWERS, *CLASSIFIERS)
HEAD = "value_head"
# What stands between the matrices of a head, by the places that they have in their sequence.
LINEAR, RECTIFIED = ([0, 2, 4, 6, 7], [0, 2, 4, 6, 8]), ([0, 3, 6, 9, 11],)
PROMPTS = ("a red circle on white", "a dog in the snow")


class UnknownModel(Exception):
    """What a checkpoint needs that this module can't give, and what to do."""


def sees(checkpoint: Path) -> bool:
    """Whether a checkpoint's model sees."""
    path = checkpoint / "config.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("model_type") in SEEING


def png(width: int, height: int, colour: Callable[[int, int], tuple[int, int, int]]) -> bytes:
    """A PNG file of 8 bits a channel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(value for x in range(width) for value in colour(x, y)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def data_uri(content: bytes) -> str:
    """An image's file as it stands in JSON; readers tell its type by its bytes."""
    return f"data:image/*;base64,{base64.b64encode(content).decode()}"


def draw() -> list[str]:
    """A few built-in images, higher, wider and smaller than what models take."""
    white, red, blue = (250, 250, 250), (200, 30, 30), (20, 60, 110)
    drawn = [
        png(320, 240, lambda x, y: red if (x - 160) ** 2 + (y - 120) ** 2 < 6400 else white),
        png(90, 400, lambda x, y: (x * 2, y // 2, (x + y) % 256)),
        png(40, 30, lambda x, y: white if (x % 7, y % 5) == (0, 0) else blue),
    ]
    return [data_uri(content) for content in drawn]


def read_cases(path: Path, most: int) -> list[Case]:
    """The images of a file, a line each."""
    cases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        case = json.loads(line)
        if "image" not in case:
            raise UnknownModel(f"{path}, line {number}: write an image's file, from the folder of {path.name}")
        prompt = {"prompt": case["prompt"]} if "prompt" in case else {}
        cases.append({**prompt, "image": data_uri((path.parent / case["image"]).read_bytes())})
    if not 1 <= len(cases) <= most:
        raise UnknownModel(f"{path} holds {len(cases)} images, and karat compares 1 to {most}")
    return cases


class ImageReference:
    """A checkpoint of a model that sees, in Transformers."""

    def __init__(self, manifest: Manifest) -> None:
        """Loads the image processor, the model, and a head that lies beside it."""
        import torch
        import transformers
        from PIL import Image, ImageOps

        self.torch, self.transformers, self.manifest = torch, transformers, manifest
        self.open, self.upright = Image.open, ImageOps.exif_transpose
        self.config = transformers.AutoConfig.from_pretrained(manifest.checkpoint, trust_remote_code=False)
        self.processor = transformers.AutoImageProcessor.from_pretrained(
            manifest.checkpoint, backend="pil", trust_remote_code=False
        )
        kind = self.config.model_type
        self.head = self.read_head() if kind not in CLASSIFIERS else None
        self.compares = kind in COMPARING and self.head is None
        if kind in TOWERS and self.head is None:
            raise UnknownModel(f"{manifest.checkpoint} embeds images, and no {HEAD} that rates them lies beside it")
        automatic = transformers.AutoModelForImageClassification if kind in CLASSIFIERS else transformers.AutoModel
        if kind == "clip_vision_model":
            automatic = transformers.CLIPVisionModelWithProjection
        self.model = automatic.from_pretrained(manifest.checkpoint, dtype=torch.float32, attn_implementation="eager")
        self.model.eval()

    def cases(self) -> list[Case]:
        """The built-in images, with prompts where the model compares."""
        prompts = [{"prompt": prompt} for prompt in PROMPTS] if self.compares else [{}]
        return [{**prompt, "image": image} for image in draw() for prompt in prompts]

    def record(self, case: Case) -> Case:
        """An image with its score."""
        with self.torch.no_grad():
            if self.compares:
                reward = self.likeness(case)
            elif self.head:
                reward = self.head(self.normed(self.embedding(case["image"])))
            else:
                reward = self.labelled(self.model(pixel_values=self.pixels(case["image"])).logits[0])
        return case | {"reward": round(float(reward), 7)}

    def pixels(self, image: str) -> Any:
        """What the checkpoint's processor makes of an image."""
        opened = self.open(io.BytesIO(base64.b64decode(image.partition(",")[2])))
        return self.processor(self.upright(opened).convert("RGB"), return_tensors="pt")["pixel_values"]

    def embedding(self, image: str) -> Any:
        """An image's embedding, `[1, width]`."""
        pooled = self.model.vision_model(pixel_values=self.pixels(image)).pooler_output
        projection = getattr(self.model, "visual_projection", None)
        return projection(pooled) if projection is not None else pooled

    def normed(self, embedding: Any) -> Any:
        """An embedding of length 1."""
        return embedding / embedding.norm(dim=-1, keepdim=True)

    def likeness(self, case: Case) -> float:
        """The scaled cosine, as the manifest says it or as the weights do."""
        given = self.model(input_ids=self.tokens(case.get("prompt", "")), pixel_values=self.pixels(case["image"]))
        cosine = float((self.normed(given.image_embeds) * self.normed(given.text_embeds)).sum())
        stated = self.manifest.head.get("likeness") if isinstance(self.manifest.head, dict) else None
        if stated is None:
            bias = getattr(self.model, "logit_bias", None)
            return float(self.model.logit_scale.exp()) * cosine + (0.0 if bias is None else float(bias))
        if stated.get("between", ["image_text"]) != ["image_text"] or stated.get("objectives"):
            raise UnknownModel("head: this program computes the likeness of an image and a text alone")
        return float(stated.get("scale", 1.0)) * cosine + float(stated.get("bias", 0.0))

    def tokens(self, prompt: str) -> Any:
        """A prompt's tokens, filled up where the model was trained so."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.manifest.tokenizer / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ids = tokenizer.encode(prompt).ids
        if self.config.model_type == "siglip":
            text = self.config.text_config
            ids += [text.pad_token_id] * (text.max_position_embeddings - len(ids))
        return self.torch.tensor([ids])

    def labelled(self, logits: Any) -> float:
        """The reward of a classifier, as the manifest says it; of one label its logit."""
        stated = self.manifest.head.get("classifier") if isinstance(self.manifest.head, dict) else None
        if stated is None:
            if len(logits) != 1:
                raise UnknownModel(f"the head gives {len(logits)} numbers, and only you know which is the reward")
            return float(logits[0])
        place = stated["labels"].index(stated["label"])
        if stated.get("activation", "softmax") == "sigmoid":
            logarithms = self.torch.nn.functional.logsigmoid(logits.double())
        else:
            logarithms = self.torch.log_softmax(logits.double(), dim=-1)
        gives = {"logit": logits, "probability": logarithms.exp(), "log_probability": logarithms}
        return float(gives[stated["gives"]][place])

    def read_head(self) -> Callable[[Any], Any] | None:
        """The head over normed embeddings that lies beside the model or in it, if there is one."""
        tensors = {name: value.to(self.torch.float32) for name, value in self.head_tensors().items()}
        if not tensors:
            return None
        linear = self.torch.nn.functional.linear
        names = {name.rpartition(".")[0] for name in tensors}
        if len(names) == 1:
            (name,) = names
            prefix = f"{name}." if name else ""
            return lambda value: linear(value, tensors[f"{prefix}weight"], tensors.get(f"{prefix}bias"))
        layers = sorted(names, key=lambda name: int(name.rpartition(".")[2]))
        places = [int(name.rpartition(".")[2]) for name in layers]
        if places not in (*LINEAR, *RECTIFIED):
            raise UnknownModel(f"the head's layers are {', '.join(layers)}, and no file says what stood between them")

        def run(value: Any) -> Any:
            for name in layers:
                if name != layers[0] and places in RECTIFIED:
                    value = value.relu()
                value = linear(value, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
            return value

        return run

    def head_tensors(self) -> dict[str, Any]:
        """The tensors of the head."""
        from safetensors.torch import load_file

        folder = self.manifest.checkpoint
        for path in sorted(folder.glob(f"{HEAD}.*"), reverse=True):
            if path.suffix == ".safetensors":
                return dict(load_file(path))
            return dict(self.torch.load(path, weights_only=True))
        found: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            found |= {
                name: value
                for name, value in load_file(path).items()
                if name.startswith(("predictor.", "layers.", "scoring_head."))
            }
        return found
