"""Models that are moved to a GPU keep everything else that their manifests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import repository


class TestRepositories:
    @pytest.fixture(autouse=True)
    def _source(self, tmp_path: Path) -> None:
        self.source, self.target = tmp_path / "source", tmp_path / "new/model"
        self.source.mkdir()
        (self.source / "model.onnx").write_bytes(b"graph")

    def on(self, manifest: str, provider: str) -> str:
        (self.source / "model.toml").write_text(manifest)
        repository.on_provider(self.source, self.target, provider)
        return (self.target / "model.toml").read_text()

    def test_the_provider_takes_the_place_of_those_that_were_written(self) -> None:
        manifest = 'head = "scalar"\nproviders = ["cpu"]\n[graph]\nfile = "model.onnx"\n'
        assert self.on(manifest, "cuda") == manifest.replace('"cpu"', '"cuda"')
        assert (self.source / "model.toml").read_text() == manifest

    def test_a_manifest_without_providers_gets_one_above_its_tables(self) -> None:
        assert self.on('[graph]\nfile = "a"\n', "cuda") == 'providers = ["cuda"]\n[graph]\nfile = "a"\n'

    def test_engines_of_an_earlier_run_stay_and_a_new_graph_takes_the_old_ones_place(self) -> None:
        self.on("", "tensorrt")
        (self.target / "tensorrt").mkdir()
        (self.source / "model.onnx").unlink()
        (self.source / "model.onnx").write_bytes(b"another graph")
        self.on("", "tensorrt")
        assert (self.target / "tensorrt").is_dir()
        assert (self.target / "model.onnx").read_bytes() == b"another graph"
        assert not (self.target / "model.onnx").is_symlink()
