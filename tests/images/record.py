"""Writes small images and what Transformers' image processors make of them with Pillow.

    python -m tests.images.record     # with a Python that has transformers, numpy and Pillow 12

`pixels.json` holds, for each image and each `preprocessor_config.json`, the pixels before they are rescaled: rows of
8-bit values, red first, in base64. CI needs none of this: the files are committed. From version 13 on Pillow resizes
some images in the other order, columns before rows, which moves a pixel here and there by one.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

FOLDER = Path(__file__).parent
SIDE = 16
PROCESSORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "clip": (CLIPImageProcessorPil, {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "clip_old": (CLIPImageProcessorPil, {"size": SIDE, "crop_size": SIDE}),
    "siglip": (SiglipImageProcessorPil, {"size": {"height": SIDE, "width": SIDE}}),
    "vit": (ViTImageProcessorPil, {"size": {"height": SIDE, "width": SIDE}}),
    "convnext": (ConvNextImageProcessorPil, {"size": {"shortest_edge": SIDE}}),
    "convnext_large": (ConvNextImageProcessorPil, {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
    "lanczos": (ViTImageProcessorPil, {"size": {"height": SIDE, "width": 2 * SIDE}, "resample": 1}),
    "nearest": (ViTImageProcessorPil, {"size": {"height": SIDE, "width": SIDE}, "resample": 0}),
    "box": (ViTImageProcessorPil, {"size": {"height": SIDE, "width": SIDE}, "resample": 4}),
    "hamming": (ViTImageProcessorPil, {"size": {"height": SIDE, "width": SIDE}, "resample": 5}),
    # Larger than the image, which is made larger or framed in black.
    "upscaled": (ViTImageProcessorPil, {"size": {"height": 40, "width": 56}, "resample": 3}),
    "framed": (CLIPImageProcessorPil, {"size": {"shortest_edge": 9}, "crop_size": {"height": SIDE, "width": 20}}),
    "uncut": (CLIPImageProcessorPil, {"do_resize": False, "crop_size": {"height": 40, "width": 31}}),
}


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A gradient with edges and a little noise."""
    noise = np.random.default_rng(height * 1000 + width)
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 255 / height, columns * 255 / width, 127 + 120 * np.sin(rows / 3 + columns / 5)]
    planes.append((rows + columns) * 255 / (height + width))
    values = np.stack(planes[:channels], axis=-1)
    values[height // 4 : height // 2, width // 3 : width // 2] = 255
    return np.clip(values + noise.normal(0, 6, values.shape), 0, 255).astype(np.uint8)


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and doesn't write."""
    height, width, channels = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kind = {1: 0, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def write_images() -> None:
    """One file of each kind."""
    image = Image.fromarray(picture(37, 53))
    seen = Image.fromarray(picture(37, 53, 4), "RGBA")
    image.save(FOLDER / "rgb.png")
    seen.save(FOLDER / "rgba.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=32).save(FOLDER / "palette.png")
    image.convert("L").save(FOLDER / "grey.png")
    seen.convert("LA").save(FOLDER / "grey_alpha.png")
    image.convert("1").save(FOLDER / "bits.png")
    (FOLDER / "rgb16.png").write_bytes(png16(picture(37, 53).astype(np.uint16) * 257 - 100 * 2))
    (FOLDER / "rgba16.png").write_bytes(png16(picture(37, 53, 4).astype(np.uint16) * 255))
    (FOLDER / "grey16.png").write_bytes(png16(picture(37, 53)[:, :, :1].astype(np.uint16) * 257))
    image.save(FOLDER / "full.jpg", quality=95, subsampling=0)
    image.save(FOLDER / "halved.jpg", quality=80, subsampling=2)
    image.save(FOLDER / "across.jpg", quality=85, subsampling=1)
    image.save(FOLDER / "progressive.jpg", quality=80, progressive=True)
    image.convert("L").save(FOLDER / "grey.jpg", quality=85)
    image.convert("CMYK").save(FOLDER / "cmyk.jpg", quality=85)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(FOLDER / f"turned{orientation}.jpg", quality=90, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(FOLDER / "turned.png", exif=exif)
    image.save(FOLDER / "turned.webp", lossless=True, exif=exif)
    image.save(FOLDER / "lossless.webp", lossless=True)
    image.save(FOLDER / "lossy.webp", quality=80)
    seen.save(FOLDER / "alpha.webp", quality=80)
    image.save(FOLDER / "still.gif")
    frames = [Image.fromarray(picture(37, 53) // divisor) for divisor in (1, 2, 3)]
    frames[0].save(FOLDER / "moving.gif", save_all=True, append_images=frames[1:], duration=40)
    frames[0].save(FOLDER / "moving.webp", save_all=True, append_images=frames[1:], duration=40, lossless=True)
    Image.fromarray(picture(3, 200)).save(FOLDER / "wide.png")
    Image.fromarray(picture(200, 3)).save(FOLDER / "high.png")
    Image.fromarray(picture(1, 1)).save(FOLDER / "dot.png")


def record() -> None:
    """Every image as CLIP's processor prepares it, and some as the others do."""
    cases = []
    settings = {}
    for name, (kind, changes) in PROCESSORS.items():
        processor = kind(**changes)
        settings[name] = {key: value for key, value in processor.to_dict().items() if value is not None}
        files = (
            sorted(FOLDER.glob("*.*"))
            if name == "clip"
            else [FOLDER / "rgb.png", FOLDER / "wide.png"][: 1 if name == "upscaled" else 2]
        )
        for file in files:
            if file.suffix not in {".png", ".jpg", ".webp", ".gif"} or file.name in {"cmyk.jpg", "grey16.png"}:
                continue
            if name == "convnext_large" and file.name != "rgb.png":
                continue
            # Upright and in RGB, as pipelines load them.
            plain = processor(load_image(str(file)), do_rescale=False, do_normalize=False, return_tensors="np")
            values = np.asarray(plain["pixel_values"][0]).transpose(1, 2, 0)
            assert (values == np.round(values)).all()
            pixels = values.astype(np.uint8)
            if name == "convnext_large":
                # Too many to keep: each eighth row and column.
                pixels = pixels[::48, ::48]
            coded = base64.b64encode(pixels.tobytes()).decode()
            cases.append({"file": file.name, "processor": name, "size": values.shape[:2], "pixels": coded})
    scaled = CLIPImageProcessorPil(**PROCESSORS["clip"][1])
    numbers = scaled(load_image(str(FOLDER / "rgb.png")), return_tensors="np")["pixel_values"][0]
    written = {"processors": settings, "cases": cases, "scaled": [float(number) for number in numbers.ravel()[:300]]}
    (FOLDER / "pixels.json").write_text(json.dumps(written) + "\n")


if __name__ == "__main__":
    write_images()
    record()
