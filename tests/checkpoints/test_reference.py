"""What `tools.reference` records, as far as it can be told without torch.

The scores themselves were compared with those in the folders here, which `record.py` computes in another way.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tools import reference, reference_images


def test_it_says_how_to_install_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(reference.Unrecordable, match="pip install torch transformers"):
        reference.Reference(reference.Manifest(Path(), Path()))


def test_a_graph_has_no_reference_in_transformers(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('[graph]\nfile = "model.onnx"\n')
    with pytest.raises(reference.Unrecordable, match="names no checkpoint"):
        reference.Manifest.read(tmp_path)


def test_text_is_rendered_as_the_manifest_says(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(
        '[graph]\ncheckpoint = "../weights"\n[text]\nrender = { jinja = "x" }\ndate = "2024-07-26"\nbos_token = "<s>"\n'
    )
    manifest = reference.Manifest.read(tmp_path)
    assert (manifest.render, str(manifest.date), manifest.tokens) == (
        {"jinja": "x"},
        "2024-07-26",
        {"bos_token": "<s>"},
    )
    assert manifest.checkpoint == tmp_path / "../weights"


@pytest.mark.parametrize(("pairs", "alone", "mark"), [(True, False, None), (False, True, None), (False, False, "|")])
def test_built_in_conversations_have_the_shape_that_the_model_takes(pairs: bool, alone: bool, mark: str | None) -> None:
    cases = reference.default_cases(pairs=pairs, alone=alone, mark=mark)
    keys = {"prompt", "response"} if pairs else {"response"} if alone else {"messages"}
    assert cases
    assert all(case.keys() == keys for case in cases)
    if mark:
        said = [case["messages"][-1]["content"] for case in cases]
        assert all(text.endswith(mark) for text in said)
        assert any(text.count(mark) > 1 for text in said)


def test_texts_are_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b", "id": 1}) + "\n\n")
    assert reference.read_cases(path) == [{"prompt": "a", "response": "b"}]
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(reference.Unrecordable, match="line 1"):
        reference.read_cases(path)


def test_built_in_images_are_files_that_everybody_reads() -> None:
    files = [base64.b64decode(uri.partition(",")[2]) for uri in reference_images.draw()]
    sizes = set()
    for content in files:
        with Image.open(io.BytesIO(content)) as image:
            sizes.add(image.size)
            assert len(set(image.convert("RGB").tobytes())) > 1
    assert len(sizes) == len(files) > 1


def test_images_are_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "images.jsonl"
    (tmp_path / "a.png").write_bytes(b"abc")
    path.write_text(json.dumps({"image": "a.png", "prompt": "b", "id": 1}) + "\n\n")
    assert reference_images.read_cases(path, 64) == [{"prompt": "b", "image": "data:image/*;base64,YWJj"}]
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(reference_images.UnknownModel, match="line 1"):
        reference_images.read_cases(path, 64)


def test_models_that_see_are_told_by_their_configuration(tmp_path: Path) -> None:
    assert not reference_images.sees(tmp_path)
    for kind, expected in [("siglip", True), ("llama", False)]:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert reference_images.sees(tmp_path) is expected
