"""Images: how they are sent, and where they may stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from in_memory import Server
from karat_client import Client, Image, errors
from karat_client.inputs import Prompt

IMAGE = Image.of(b"\x00\x01")
URI = "data:image/*;base64,AAE="


def test_an_image_is_its_files_bytes_or_a_url(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"\x00\x01")
    assert Image.file(path) == IMAGE
    assert (IMAGE.uri, Image.url("https://images.example/a.png").uri) == (URI, "https://images.example/a.png")
    assert URI not in repr(IMAGE)


def test_an_image_is_a_response(client: Client, server: Server) -> None:
    prompts: list[Prompt] = ["a cat", [{"role": "user", "content": [IMAGE, "the same cat"]}], ""]
    client.score(prompts=prompts, responses=[IMAGE, IMAGE, IMAGE])
    part = {"type": "image", "image": URI}
    asked = {"role": "user", "content": [part, {"type": "text", "text": "the same cat"}]}
    assert server.requests[0]["inputs"] == [
        {"prompt": "a cat", "image": URI},
        {"messages": [asked, {"role": "assistant", "content": [part]}]},
        {"prompt": "", "image": URI},
    ]


def test_images_are_candidates_and_sides_of_pairs(client: Client, server: Server) -> None:
    shown = [{"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": URI}}]}]
    client.best_of_n("a cat", [IMAGE, shown, "no image"])
    client.compare("a cat", chosen=[IMAGE], rejected=[Image.url("https://images.example/a.png")], beta=10.0)
    ranked, compared = server.requests
    assert ranked["candidates"] == [{"image": URI}, {"image": URI}, "no image"]
    assert compared["pairs"] == [
        {"prompt": "a cat", "chosen": {"image": URI}, "rejected": {"image": "https://images.example/a.png"}}
    ]


def test_what_is_no_image_and_no_text_is_refused_by_its_type(client: Client) -> None:
    video = [{"role": "assistant", "content": [{"type": "video_url", "video_url": {"url": URI}}]}]
    with pytest.raises(errors.InvalidInput, match="video_url"):
        client.score(prompts="a cat", responses=[video])
    bare = [{"role": "assistant", "content": [{"type": "image_url", "image_url": {"detail": "low"}}]}]
    with pytest.raises(errors.InvalidInput, match="needs a URL"):
        client.best_of_n("a cat", [bare])
    with pytest.raises(errors.InvalidInput, match="one image"):
        client.best_of_n("a cat", [[{"role": "assistant", "content": [IMAGE, "a cat"]}]])
