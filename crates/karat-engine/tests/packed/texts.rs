//! Recorded texts, and how they stand in a pass.

use std::{
    fs,
    path::{Path, PathBuf},
};

use karat_runtime::{
    Read,
    packed::{BLOCK_TOKENS, PackedPass, PackedRead, PackedSequence},
};
use serde_json::Value;

/// The mark behind a step, in the recorded process reward model.
const MARK: u32 = 3;

/// The folder of recorded checkpoints.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints")
}

/// The folders of recorded checkpoints.
pub(crate) fn recorded() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What a manifest says of where a model is read is the engine's part.
    folders.retain(|folder| folder.join("expected.json").is_file() && !folder.join("model.toml").is_file());
    // Its steps end with a line break, which stands elsewhere too.
    folders.retain(|folder| !folder.ends_with("skywork-o1-prm"));
    folders.sort();
    folders
}

/// A text as tokens, and what Transformers gives for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text {
    pub(crate) tokens: Vec<u32>,
    pub(crate) segments: Vec<u32>,
    /// The tokens at which outputs are read.
    pub(crate) reads: Vec<usize>,
    /// A reward, or a probability for each step.
    pub(crate) wanted: Vec<f32>,
    pub(crate) by_steps: bool,
}

/// The texts that were recorded for a checkpoint.
pub(crate) fn of(folder: &Path) -> Vec<Text> {
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    expected["cases"].as_array().unwrap().iter().map(text).collect()
}

fn text(case: &Value) -> Text {
    let tokens = integers(&case["tokens"]);
    let segments = integers(&case["types"]);
    if let Some(steps) = case["steps"].as_array() {
        let reads = (0..tokens.len()).filter(|at| tokens[*at] == MARK).collect();
        return Text { tokens, segments, reads, wanted: steps.iter().map(number).collect(), by_steps: true };
    }
    // A pair's score stands at its first token, a conversation's at its last.
    let at = if case["prompt"].is_string() { 0 } else { tokens.len() - 1 };
    Text { tokens, segments, reads: vec![at], wanted: wanted(case), by_steps: false }
}

/// What the graph's first output holds of a case: its reward, or the objectives that the engine weighs.
fn wanted(case: &Value) -> Vec<f32> {
    match case["objectives"].as_array() {
        Some(objectives) => objectives.iter().map(number).collect(),
        None => vec![number(&case["reward"])],
    }
}

fn integers(list: &Value) -> Vec<u32> {
    let list = list.as_array().into_iter().flatten();
    list.map(|value| u32::try_from(value.as_u64().unwrap()).unwrap()).collect()
}

pub(crate) fn number(value: &Value) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "scores are compared in 32 bits")]
    let number = value.as_f64().unwrap() as f32;
    number
}

/// A pass in the making.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) pass: PackedPass,
    next_block: u32,
}

impl Layout {
    /// With a text of its own blocks behind the others.
    pub(crate) fn with(mut self, text: &Text) -> Self {
        let first = self.pass.tokens.len();
        self.pass.segments.extend(&text.segments);
        let blocks = self.blocks(text.tokens.len());
        self.rows(&[], &text.tokens, 0, blocks);
        self.read(text.reads.iter().map(|at| first + at));
        self
    }

    /// With a prompt and its candidates, each read at its end: what of the prompt fills blocks is shared, the rest repeated
    /// before each candidate. Of a prompt that an earlier pass wrote into the first blocks, only that rest is computed.
    pub(crate) fn group(mut self, prompt: &[u32], candidates: &[Vec<u32>], prompt_is_known: bool) -> Self {
        let whole = prompt.len() / BLOCK_TOKENS * BLOCK_TOKENS;
        let of_prompt = self.blocks(prompt.len());
        let tail = if prompt_is_known {
            self.pass.tokens.len()..self.pass.tokens.len()
        } else {
            let first = self.pass.tokens.len();
            self.rows(&[], prompt, 0, of_prompt.clone());
            first + whole..first + prompt.len()
        };
        for candidate in candidates {
            let own = if prompt_is_known { [&prompt[whole..], candidate].concat() } else { candidate.clone() };
            let repeated: Vec<usize> = tail.clone().collect();
            let mut blocks = of_prompt[..whole / BLOCK_TOKENS].to_vec();
            blocks.extend(self.blocks(repeated.len() + own.len()));
            self.rows(&repeated, &own, whole, blocks);
            let last = self.pass.tokens.len() - 1;
            self.read([last].into_iter());
        }
        self
    }

    /// With tokens that continue what stands in `blocks`, in the last of which there is room; read at their end.
    pub(crate) fn continuing(mut self, past: usize, tokens: &[u32], blocks: Vec<u32>) -> Self {
        self.rows(&[], tokens, past, blocks);
        let last = self.pass.tokens.len() - 1;
        self.read([last].into_iter());
        self
    }

    /// With a text of its own blocks, read at its end.
    pub(crate) fn continuing_alone(mut self, tokens: &[u32]) -> Self {
        let blocks = self.blocks(tokens.len());
        self.continuing(0, tokens, blocks)
    }

    /// With outputs of these tokens read.
    pub(crate) fn reading(mut self, tokens: impl Iterator<Item = usize>) -> Self {
        self.read(tokens);
        self
    }

    fn blocks(&mut self, tokens: usize) -> Vec<u32> {
        let first = self.next_block;
        self.next_block += u32::try_from(tokens.div_ceil(BLOCK_TOKENS)).unwrap();
        (first..self.next_block).collect()
    }

    /// Adds a sequence: rows of tokens that stand in the pass already, then those of new ones.
    fn rows(&mut self, repeated: &[usize], tokens: &[u32], past: usize, blocks: Vec<u32>) {
        let pass = &mut self.pass;
        let first = pass.tokens.len();
        pass.expand.extend(repeated);
        pass.contract.extend(pass.expand.len()..pass.expand.len() + tokens.len());
        pass.expand.extend(first..first + tokens.len());
        pass.tokens.extend(tokens);
        pass.sequences.push(PackedSequence { rows: repeated.len() + tokens.len(), past, blocks });
    }

    fn read(&mut self, tokens: impl Iterator<Item = usize>) {
        self.pass.reads.extend(tokens.map(|at| PackedRead { at, output: 0, what: Read::Numbers }));
    }
}
