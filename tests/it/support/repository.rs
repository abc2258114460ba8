//! Temporary model repositories out of the graphs and checkpoints in `tests/graphs`.

use std::{fs, path::Path};

use serde_json::{Map, json};
use tempfile::TempDir;

use super::{karat, root};

/// A `[text]` table that takes text as it comes: no template, no special tokens, at most 64 tokens.
pub(crate) const RAW: &str =
    "[text]\nrender = \"raw\"\nspecial_tokens = false\npad_token = \"[PAD]\"\nmax_tokens = 64\n";

/// A manifest: `rules` above, then the graph file, then [`RAW`].
pub(crate) fn graph_manifest(rules: &str, graph: &str) -> String {
    format!("{rules}\n[graph]\nfile = \"{graph}.onnx\"\n{RAW}")
}

/// A model repository that vanishes with this value.
pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    /// One without models.
    pub(crate) fn empty() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    /// One with the model `sum`, whose score is the sum of the text's numbers over 1000.
    pub(crate) fn with_sum() -> Self {
        let repository = Self::empty();
        repository.add_graph("sum", "");
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a model of the same name as its graph, with `rules` at the top of its manifest.
    pub(crate) fn add_graph(&self, graph: &str, rules: &str) {
        self.add(graph, &graph_manifest(rules, graph), &[graph]);
    }

    /// Adds a model with this manifest, these graphs and the tokenizer.
    pub(crate) fn add(&self, name: &str, manifest: &str, graphs: &[&str]) {
        self.write(name, "model.toml", manifest);
        self.write(name, "tokenizer.json", tokenizer());
        for graph in graphs {
            let file = format!("{graph}.onnx");
            fs::copy(root().join("tests/graphs").join(&file), self.path().join(name).join(&file)).unwrap();
        }
    }

    /// Adds a model with this manifest, these checkpoints in folders of their own, and the tokenizer.
    pub(crate) fn add_checkpoints(&self, name: &str, manifest: &str, checkpoints: &[&str]) {
        self.add(name, manifest, &[]);
        for checkpoint in checkpoints {
            for file in fs::read_dir(root().join("tests/graphs").join(checkpoint)).unwrap() {
                let file = file.unwrap();
                let target = format!("{checkpoint}/{}", file.file_name().to_string_lossy());
                self.write(name, &target, fs::read(file.path()).unwrap());
            }
        }
    }

    /// Writes a file of a model.
    pub(crate) fn write(&self, name: &str, file: &str, content: impl AsRef<[u8]>) {
        let file = self.path().join(name).join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// Asks in a checkpoint's manifest for a form of its graph; karat writes the rest of it where there is none.
    pub(crate) fn write_form(&self, name: &str, form: &str) {
        let folder = self.path().join(name);
        let path = folder.join("model.toml");
        if !path.is_file() {
            let written = karat(&["inspect", folder.to_str().unwrap(), "--write"]).output().unwrap();
            assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        }
        let manifest = fs::read_to_string(&path).unwrap();
        fs::write(path, manifest.replace("[graph]\n", &format!("[graph]\nform = \"{form}\"\n"))).unwrap();
    }

    /// Appends to a file of a model.
    pub(crate) fn append(&self, name: &str, file: &str, content: &[u8]) {
        let path = self.path().join(name).join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(content);
        fs::write(path, bytes).unwrap();
    }
}

/// A tokenizer that makes a number of its own out of each number from 10 to 299 in a text. `[CLS]` is 1, `[SEP]` is 2,
/// any other word is 3, and padding is 9, so that padding which isn't masked shows in a sum.
fn tokenizer() -> String {
    let mut vocabulary = Map::new();
    for (token, id) in [("[CLS]", 1), ("[SEP]", 2), ("[UNK]", 3), ("[PAD]", 9)] {
        vocabulary.insert(token.to_owned(), json!(id));
    }
    for number in 10..300 {
        vocabulary.insert(number.to_string(), json!(number));
    }
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
    .to_string()
}
