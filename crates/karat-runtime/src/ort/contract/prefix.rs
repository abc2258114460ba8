//! `rm-prefix/1`, the contract for sharing prefixes.
//!
//! | input | type | shape |
//! |---|---|---|
//! | `input_ids`, `position_ids` | int64 | `[1, S]` |
//! | `attn_bias` | float | `[1, 1, S, P + S]`: 0, or a large negative number where a token is not seen |
//! | `score_positions` | int64 | `[M]`: the new tokens at which outputs are read |
//! | `past_key_values.{l}.key`, `past_key_values.{l}.value` | float | `[1, KV, P, HD]`, where P may be 0 |
//! | `key_position_ids`, of graphs that want it | int64 | `[1, P + S]`: each token's place in its own text |
//!
//! Graphs whose layers see a window of the text want `key_position_ids`: what lies too far back follows from the distance
//! of positions. It means nothing of tokens that nobody sees.
//!
//! Outputs are any of `scores`, `logits` and `hidden`, float `[M, width]`, and `present.{l}.key` and
//! `present.{l}.value`, float `[1, KV, S, HD]`: the new tokens' alone.

use karat_rules::domain::{ElementType, TensorSpec};

use super::{LogitColumns, Promise, refuse};
use crate::{DecoderShape, Padding, RuntimeError, TextNeeds};

pub(super) const NAME: &str = "rm-prefix/1";

/// The inputs beside keys and values.
pub(crate) mod names {
    pub(crate) const INPUT_IDS: &str = "input_ids";
    pub(crate) const POSITION_IDS: &str = "position_ids";
    pub(crate) const ATTN_BIAS: &str = "attn_bias";
    pub(crate) const SCORE_POSITIONS: &str = "score_positions";
    pub(crate) const KEY_POSITION_IDS: &str = "key_position_ids";
}

/// What a graph's metadata promises, held against its inputs and outputs.
#[derive(Debug, Clone)]
pub(crate) struct PrefixContract {
    pub(crate) shape: DecoderShape,
    /// Where the score of a text stands, if the model has a token that it takes for padding.
    pub(crate) padding: Option<Padding>,
    /// What texts must hold.
    pub(crate) needs: TextNeeds,
    /// The inputs and outputs of keys and values, by layer, keys before values.
    pub(crate) past: Vec<String>,
    pub(crate) present: Vec<String>,
    /// Whether the graph wants the positions of all tokens, not of the new ones alone.
    pub(crate) wants_key_positions: bool,
    /// The outputs that are read at `score_positions`.
    pub(crate) outputs: Vec<TensorSpec>,
    /// Whose logits those are.
    pub(crate) logits: LogitColumns,
}

impl PrefixContract {
    pub(super) fn read(promise: &Promise<'_>) -> Result<Self, RuntimeError> {
        if promise.text("karat.present").is_some_and(|present| present != "new") {
            return Err(refuse(
                "the graph's present.* outputs hold the past as well",
                "export it with the new tokens' keys and values alone, and karat.present = \"new\"",
            ));
        }
        let layers = promise.number("karat.layers")?;
        let tensors = |prefix: &str| -> Vec<String> {
            let of_layer = |layer| ["key", "value"].map(|what| format!("{prefix}.{layer}.{what}"));
            (0..layers).flat_map(of_layer).collect()
        };
        let (past, present) = (tensors("past_key_values"), tensors("present"));
        let element = promise.find(&promise.signature.inputs, names::ATTN_BIAS)?.element;
        if !element.is_float() {
            return Err(refuse(format!("input \"{}\" holds {element}", names::ATTN_BIAS), "export it as float"));
        }
        let shape = DecoderShape {
            layers,
            kv_heads: promise.number("karat.kv_heads")?,
            head_dim: promise.number("karat.head_dim")?,
            context: promise.number("karat.context")?,
            element,
        };
        let fixed = [
            (names::INPUT_IDS, ElementType::Int64, 2),
            (names::POSITION_IDS, ElementType::Int64, 2),
            (names::ATTN_BIAS, element, 4),
            (names::SCORE_POSITIONS, ElementType::Int64, 1),
        ];
        let wants_key_positions = promise.signature.inputs.iter().any(|input| input.name == names::KEY_POSITION_IDS);
        let optional = wants_key_positions.then_some((names::KEY_POSITION_IDS, ElementType::Int64, 2));
        promise.takes(fixed.into_iter().chain(optional).chain(past.iter().map(|name| (name.as_str(), element, 4))))?;
        let outputs = promise.gives(&present, element)?;
        let (padding, needs, logits) = (promise.padding()?, promise.needs()?, promise.logits(&outputs)?);
        Ok(Self { shape, padding, needs, past, present, wants_key_positions, outputs, logits })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use karat_rules::domain::GraphSignature;

    use super::{super::testing::tensor, *};

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
            ("karat.layers", "1"),
            ("karat.kv_heads", "2"),
            ("karat.head_dim", "4"),
            ("karat.context", "64"),
            ("karat.present", "new"),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn read(metadata: &BTreeMap<String, String>, signature: &GraphSignature) -> Result<PrefixContract, RuntimeError> {
        PrefixContract::read(&Promise { name: NAME, metadata, signature })
    }

    #[test]
    fn the_contract_is_read() {
        let contract = read(&metadata(), &signature()).unwrap();
        assert_eq!(contract.shape.numbers_per_token(), 16);
        assert_eq!(contract.past, ["past_key_values.0.key", "past_key_values.0.value"]);
        assert_eq!(contract.outputs, [tensor("scores", ElementType::Float32, 2)]);
        assert_eq!(contract.padding, None);
    }

    #[test]
    fn a_broken_promise_is_named() {
        type Mistake = fn(&mut BTreeMap<String, String>, &mut GraphSignature);
        let mistakes: [(&str, Mistake); 9] = [
            ("hold the past", |metadata, _| drop(metadata.insert("karat.present".to_owned(), "all".to_owned()))),
            ("karat.context is missing", |metadata, _| drop(metadata.remove("karat.context"))),
            ("karat.head_dim is 0", |metadata, _| drop(metadata.insert("karat.head_dim".to_owned(), "0".to_owned()))),
            ("karat.pad_id", |metadata, _| drop(metadata.insert("karat.pad_id".to_owned(), "</s>".to_owned()))),
            ("past_key_values.1.key", |metadata, _| drop(metadata.insert("karat.layers".to_owned(), "2".to_owned()))),
            ("score_positions", |_, signature| drop(signature.inputs.remove(3))),
            ("as int64", |_, signature| signature.inputs[0].element = ElementType::Int32),
            ("2 axes", |_, signature| signature.inputs.push(tensor("key_position_ids", ElementType::Int64, 1))),
            ("feeds", |_, signature| signature.inputs.push(tensor("cache_position", ElementType::Int64, 1))),
        ];
        for (part, mistake) in mistakes {
            let (mut metadata, mut signature) = (metadata(), signature());
            mistake(&mut metadata, &mut signature);
            let error = read(&metadata, &signature).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
