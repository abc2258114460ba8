//! Graphs that say in their metadata that they follow `rm-prefix/1`, the contract for sharing prefixes.
//!
//! | input | type | shape |
//! |---|---|---|
//! | `input_ids`, `position_ids` | int64 | `[1, S]` |
//! | `attn_bias` | float | `[1, 1, S, P + S]`: 0, or a large negative number where a token is not seen |
//! | `score_positions` | int64 | `[M]`: the new tokens at which outputs are read |
//! | `past_key_values.{l}.key`, `past_key_values.{l}.value` | float | `[1, KV, P, HD]`, where P may be 0 |
//!
//! Outputs are any of `scores`, `logits` and `hidden`, float `[M, width]`, and `present.{l}.key` and
//! `present.{l}.value`, float `[1, KV, S, HD]`: the new tokens' alone.

use std::collections::BTreeMap;

use karat_rules::domain::{ElementType, GraphSignature, TensorSpec};

use crate::{DecoderShape, Padding, RuntimeError, TextNeeds};

/// The metadata that names the contract.
const CONTRACT_KEY: &str = "karat.contract";
/// The only contract that is known.
const CONTRACT_NAME: &str = "rm-prefix/1";

pub(super) const INPUT_IDS: &str = "input_ids";
pub(super) const POSITION_IDS: &str = "position_ids";
pub(super) const ATTN_BIAS: &str = "attn_bias";
pub(super) const SCORE_POSITIONS: &str = "score_positions";

/// What a graph's metadata promises, held against its inputs and outputs.
#[derive(Debug, Clone)]
pub(super) struct Contract {
    pub(super) shape: DecoderShape,
    /// Where the score of a text stands, if the model has a token that it takes for padding.
    pub(super) padding: Option<Padding>,
    /// What texts must hold.
    pub(super) needs: TextNeeds,
    /// The inputs and outputs of keys and values, by layer, keys before values.
    pub(super) past: Vec<String>,
    pub(super) present: Vec<String>,
    /// The outputs that are read at `score_positions`.
    pub(super) outputs: Vec<TensorSpec>,
}

impl Contract {
    /// Whether a graph with such metadata says that it follows a contract for sharing prefixes.
    pub(super) fn is_claimed(metadata: &BTreeMap<String, String>) -> bool {
        metadata.contains_key(CONTRACT_KEY)
    }

    /// Reads the contract; `None` when the graph claims none.
    pub(super) fn read(
        metadata: &BTreeMap<String, String>,
        signature: &GraphSignature,
    ) -> Result<Option<Self>, RuntimeError> {
        let Some(name) = metadata.get(CONTRACT_KEY) else { return Ok(None) };
        let refuse = |found: String, advice: &str| RuntimeError::Binding { found, advice: advice.to_owned() };
        if name != CONTRACT_NAME {
            return Err(refuse(
                format!("the graph follows the contract {name:?}, which this karat doesn't know"),
                "export it for \"rm-prefix/1\", or use a newer karat",
            ));
        }
        if metadata.get("karat.present").is_some_and(|present| present != "new") {
            return Err(refuse(
                "the graph's present.* outputs hold the past as well".to_owned(),
                "export it with the new tokens' keys and values alone, and karat.present = \"new\"",
            ));
        }
        let number = |key: &str| {
            let written = metadata.get(key).map(String::as_str);
            written.and_then(|written| written.parse::<usize>().ok()).filter(|number| *number > 0).ok_or_else(|| {
                refuse(
                    format!("the graph's metadata {key} is {}", written.unwrap_or("missing")),
                    "export it with a positive whole number there",
                )
            })
        };
        let pad_id = match metadata.get("karat.pad_id") {
            None => None,
            Some(written) => Some(written.parse().map_err(|_| {
                refuse(
                    format!("the graph's metadata karat.pad_id is {written:?}"),
                    "write a token id, or leave it out when the model has no padding token",
                )
            })?),
        };
        let padding = match metadata.get("karat.pad_rule").map(String::as_str) {
            None | Some("last_other") => pad_id.map(Padding::LastOther),
            Some("before_first") => pad_id.map(Padding::BeforeFirst),
            Some(written) => {
                return Err(refuse(
                    format!("the graph's metadata karat.pad_rule is {written:?}"),
                    "write \"last_other\" or \"before_first\", or leave it out for the first",
                ));
            }
        };
        let gate_mark = match metadata.get("karat.gates").map(String::as_str) {
            None => false,
            Some("at_mark") => true,
            Some(written) => {
                return Err(refuse(
                    format!("the graph's metadata karat.gates is {written:?}"),
                    "write \"at_mark\", or leave it out where weights are read with the score",
                ));
            }
        };
        let needs = TextNeeds { gate_mark, last_token: metadata.get("karat.last_token").cloned() };
        let layers = number("karat.layers")?;
        let tensors = |prefix: &str| -> Vec<String> {
            let of_layer = |layer| ["key", "value"].map(|what| format!("{prefix}.{layer}.{what}"));
            (0..layers).flat_map(of_layer).collect()
        };
        let (past, present) = (tensors("past_key_values"), tensors("present"));
        let element = find(&signature.inputs, ATTN_BIAS)?.element;
        let shape = DecoderShape {
            layers,
            kv_heads: number("karat.kv_heads")?,
            head_dim: number("karat.head_dim")?,
            context: number("karat.context")?,
            element,
        };
        for (name, element, rank) in [
            (INPUT_IDS, ElementType::Int64, 2),
            (POSITION_IDS, ElementType::Int64, 2),
            (ATTN_BIAS, element, 4),
            (SCORE_POSITIONS, ElementType::Int64, 1),
        ]
        .into_iter()
        .chain(past.iter().map(|name| (name.as_str(), element, 4)))
        {
            expect(find(&signature.inputs, name)?, element, rank)?;
        }
        if !element.is_float() {
            return Err(refuse(format!("input \"{ATTN_BIAS}\" holds {element}"), "export it as float"));
        }
        let known = [INPUT_IDS, POSITION_IDS, ATTN_BIAS, SCORE_POSITIONS];
        let unknown = |input: &&TensorSpec| !known.contains(&input.name.as_str()) && !past.contains(&input.name);
        if let Some(unknown) = signature.inputs.iter().find(unknown) {
            return Err(refuse(format!("nothing feeds the input {unknown}"), "export the graph without it"));
        }
        for name in &present {
            expect(find(&signature.outputs, name)?, element, 4)?;
        }
        let outputs: Vec<TensorSpec> =
            signature.outputs.iter().filter(|output| !present.contains(&output.name)).cloned().collect();
        if let Some(odd) = outputs.iter().find(|output| !output.element.is_float() || output.shape.len() != 2) {
            return Err(refuse(format!("output {odd} doesn't fit"), "export it as float [positions, width]"));
        }
        Ok(Some(Self { shape, padding, needs, past, present, outputs }))
    }
}

fn find<'a>(tensors: &'a [TensorSpec], name: &str) -> Result<&'a TensorSpec, RuntimeError> {
    tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| RuntimeError::Binding {
        found: format!("the graph has no {name:?}"),
        advice: "export it as the contract rm-prefix/1 says, or without naming the contract in its metadata".to_owned(),
    })
}

fn expect(tensor: &TensorSpec, element: ElementType, rank: usize) -> Result<(), RuntimeError> {
    if tensor.element == element && tensor.shape.len() == rank {
        return Ok(());
    }
    Err(RuntimeError::Binding {
        found: format!("{tensor} doesn't fit the contract rm-prefix/1"),
        advice: format!("export it as {element} with {rank} axes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use karat_rules::domain::Dimension;

    fn tensor(name: &str, element: ElementType, rank: usize) -> TensorSpec {
        TensorSpec { name: name.to_owned(), element, shape: vec![Dimension::Dynamic(String::new()); rank] }
    }

    fn signature() -> GraphSignature {
        use ElementType::{Float32, Int64};
        GraphSignature {
            inputs: vec![
                tensor("input_ids", Int64, 2),
                tensor("position_ids", Int64, 2),
                tensor("attn_bias", Float32, 4),
                tensor("score_positions", Int64, 1),
                tensor("past_key_values.0.key", Float32, 4),
                tensor("past_key_values.0.value", Float32, 4),
            ],
            outputs: vec![
                tensor("scores", Float32, 2),
                tensor("present.0.key", Float32, 4),
                tensor("present.0.value", Float32, 4),
            ],
        }
    }

    fn metadata() -> BTreeMap<String, String> {
        let pairs = [
            ("karat.contract", "rm-prefix/1"),
            ("karat.layers", "1"),
            ("karat.kv_heads", "2"),
            ("karat.head_dim", "4"),
            ("karat.context", "64"),
            ("karat.present", "new"),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn a_graph_without_the_contract_is_an_ordinary_one() {
        assert!(Contract::read(&BTreeMap::new(), &signature()).unwrap().is_none());
    }

    #[test]
    fn the_contract_is_read() {
        let contract = Contract::read(&metadata(), &signature()).unwrap().unwrap();
        assert_eq!(contract.shape.numbers_per_token(), 16);
        assert_eq!(contract.past, ["past_key_values.0.key", "past_key_values.0.value"]);
        assert_eq!(contract.outputs, [tensor("scores", ElementType::Float32, 2)]);
        assert_eq!((contract.padding, contract.needs), (None, TextNeeds::default()));
    }

    #[test]
    fn a_broken_promise_is_named() {
        type Mistake = fn(&mut BTreeMap<String, String>, &mut GraphSignature);
        let mistakes: [(&str, Mistake); 11] = [
            ("rm-prefix/2", |metadata, _| drop(metadata.insert(CONTRACT_KEY.to_owned(), "rm-prefix/2".to_owned()))),
            ("hold the past", |metadata, _| drop(metadata.insert("karat.present".to_owned(), "all".to_owned()))),
            ("karat.context is missing", |metadata, _| drop(metadata.remove("karat.context"))),
            ("karat.head_dim is 0", |metadata, _| drop(metadata.insert("karat.head_dim".to_owned(), "0".to_owned()))),
            ("karat.gates", |metadata, _| drop(metadata.insert("karat.gates".to_owned(), "end".to_owned()))),
            ("karat.pad_rule", |metadata, _| drop(metadata.insert("karat.pad_rule".to_owned(), "first".to_owned()))),
            ("karat.pad_id", |metadata, _| drop(metadata.insert("karat.pad_id".to_owned(), "</s>".to_owned()))),
            ("past_key_values.1.key", |metadata, _| drop(metadata.insert("karat.layers".to_owned(), "2".to_owned()))),
            ("score_positions", |_, signature| drop(signature.inputs.remove(3))),
            ("as int64", |_, signature| signature.inputs[0].element = ElementType::Int32),
            ("feeds", |_, signature| signature.inputs.push(tensor("cache_position", ElementType::Int64, 1))),
        ];
        for (part, mistake) in mistakes {
            let (mut metadata, mut signature) = (metadata(), signature());
            mistake(&mut metadata, &mut signature);
            let error = Contract::read(&metadata, &signature).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
