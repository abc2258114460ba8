//! Prompts around and beyond a block of keys and values, with candidates behind them, against what Transformers recorded
//! (`tests/checkpoints/record_long.py`).

use std::fs;

use karat_runtime::packed::BLOCK_TOKENS;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    assert_close,
    model::Model,
    texts::{self, Layout},
};

/// A checkpoint with a longer context, and what was recorded of it.
struct Long {
    model: Model,
    prompts: Vec<Prompt>,
    candidates: Vec<Vec<u32>>,
}

struct Prompt {
    tokens: Vec<u32>,
    /// The reward of the prompt itself.
    alone: f32,
    /// The reward of each candidate behind it.
    rewards: Vec<f32>,
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|at| 4 + (7 * at * at + 3 * at) % 256).collect()
}

fn candidate(number: usize, length: u32) -> Vec<u32> {
    let number = u32::try_from(number).unwrap();
    (0..length).map(|at| 4 + (5 * at * at + at + 31 * number) % 256).collect()
}

fn checkpoints() -> Vec<Long> {
    let recorded: Value = serde_json::from_slice(&fs::read(texts::folder().join("long.json")).unwrap()).unwrap();
    let lengths = recorded["candidates"].as_array().unwrap().iter();
    let lengths = lengths.map(|length| u32::try_from(length.as_u64().unwrap()).unwrap());
    let candidates: Vec<Vec<u32>> = lengths.enumerate().map(|(number, length)| candidate(number, length)).collect();
    let checkpoints = recorded["checkpoints"].as_object().unwrap().iter();
    checkpoints
        .map(|(name, recorded)| Long {
            model: open(name, &recorded["config"]),
            prompts: recorded["prompts"].as_object().unwrap().iter().map(read).collect(),
            candidates: candidates.clone(),
        })
        .collect()
}

fn read((length, recorded): (&String, &Value)) -> Prompt {
    Prompt {
        tokens: prompt(length.parse().unwrap()),
        alone: texts::number(&recorded["alone"]),
        rewards: recorded["candidates"].as_array().unwrap().iter().map(texts::number).collect(),
    }
}

/// The recorded checkpoint of that name with other keys in its configuration.
fn open(name: &str, changes: &Value) -> Model {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(texts::folder().join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(&path, config.to_string()).unwrap();
    Model::open(name, copy.path()).unwrap()
}

#[test]
fn candidates_share_a_prompt_of_any_length_in_one_pass() {
    for Long { mut model, prompts, candidates } in checkpoints() {
        for prompt in &prompts {
            let last = prompt.tokens.len() - 1;
            let layout = Layout::default().group(&prompt.tokens, &candidates, false).reading([last].into_iter());
            let wanted = [prompt.rewards.as_slice(), &[prompt.alone]].concat();
            let found = model.run(&layout);
            assert_close(&format!("{} {}", model.name, last + 1), &found, &wanted);
        }
    }
}

#[test]
fn several_prompts_and_single_texts_share_a_pass() {
    for Long { mut model, prompts, candidates } in checkpoints() {
        let picked: Vec<&Prompt> =
            prompts.iter().filter(|prompt| [7, 256, 300].contains(&prompt.tokens.len())).collect();
        let layout = picked.iter().fold(Layout::default(), |layout, prompt| {
            layout.group(&prompt.tokens, &candidates[..3], false).continuing_alone(&prompt.tokens)
        });
        let wanted: Vec<f32> =
            picked.iter().flat_map(|prompt| [&prompt.rewards[..3], &[prompt.alone]].concat()).collect();
        let found = model.run(&layout);
        assert_close(&model.name, &found, &wanted);
    }
}

#[test]
fn outputs_are_read_wherever_a_text_is_asked_for() {
    for Long { mut model, prompts, .. } in checkpoints() {
        let longest = prompts.iter().max_by_key(|prompt| prompt.tokens.len()).unwrap();
        let layout = Layout::default().group(&longest.tokens, &[], false);
        let layout = layout.reading(prompts.iter().map(|prompt| prompt.tokens.len() - 1));
        let wanted: Vec<f32> = prompts.iter().map(|prompt| prompt.alone).collect();
        let found = model.run(&layout);
        assert_close(&model.name, &found, &wanted);
    }
}

#[test]
fn what_an_earlier_pass_wrote_is_a_past() {
    for Long { mut model, prompts, candidates } in checkpoints() {
        for prompt in &prompts {
            let length = prompt.tokens.len();
            model.run(&Layout::default().group(&prompt.tokens, &[], false));
            // Candidates that compute the rest of the prompt anew, in blocks of their own.
            let known = Layout::default().group(&prompt.tokens, &candidates, true);
            let found = model.run(&known);
            assert_close(&format!("{} {length}", model.name), &found, &prompt.rewards);
            // One that goes on in the prompt's own last block.
            let blocks = (0..u32::try_from((length + 260).div_ceil(BLOCK_TOKENS)).unwrap()).collect();
            let grown = Layout::default().continuing(length, &candidates[4], blocks);
            let found = model.run(&grown);
            assert_close(&format!("{} {length}", model.name), &found, &prompt.rewards[4..]);
        }
    }
}
