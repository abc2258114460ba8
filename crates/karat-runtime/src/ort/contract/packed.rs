//! `rm-packed/1`, the contract for packed rows.
//!
//! | input | type | shape |
//! |---|---|---|
//! | `input_ids` | int64 | `[T]`: the tokens, each once |
//! | `token_type_ids`, where the model tells segments apart | int64 | `[T]` |
//! | `position_ids`, where it has a table of positions | int64 | `[T]`: each token's place in its text |
//! | `expand`, of a causal model | int64 | `[E]`: for each row that attention sees, its token |
//! | `contract`, of a causal model | int64 | `[T]`: for each token, the row whose attention it takes |
//! | `cumulative_sequence_length` | int32 | `[B + 1]`: where each sequence's rows begin, and how many rows there are |
//! | `past_seqlens` | int32 | `[B]`: the tokens before them |
//! | `block_table` | int32 | `[B, M]`: the blocks of each sequence's past and rows |
//! | `attention_metadata` | int32 | `[2]`, in the processor's memory: the most rows of a sequence, with its past |
//! | `score_positions` | int64 | `[R]`: the tokens at which outputs are read |
//! | `key_cache.{l}`, `value_cache.{l}` | float | `[blocks, 256, KV, HD]` |
//!
//! Outputs are any of `scores`, `logits` and `hidden`, float `[R, width]`, and, of a causal model, `key_cache_out.{l}`
//! and `value_cache_out.{l}`: the caches with the pass's keys and values written into them, in the same memory. A model
//! that looks both ways keeps and shares nothing, so that its rows are its tokens, all of its layers use the caches of
//! layer 0, and none comes out.

use karat_rules::domain::{Dimension, ElementType, TensorSpec};

use super::{LogitColumns, Promise, refuse};
use crate::{
    RuntimeError,
    packed::{BLOCK_TOKENS, PackedModel},
};

pub(super) const NAME: &str = "rm-packed/1";

/// The inputs beside the caches.
pub(crate) mod names {
    pub(crate) const INPUT_IDS: &str = "input_ids";
    pub(crate) const SEGMENTS: &str = "token_type_ids";
    pub(crate) const POSITIONS: &str = "position_ids";
    pub(crate) const EXPAND: &str = "expand";
    pub(crate) const CONTRACT: &str = "contract";
    pub(crate) const ROW_STARTS: &str = "cumulative_sequence_length";
    pub(crate) const PASTS: &str = "past_seqlens";
    pub(crate) const BLOCKS: &str = "block_table";
    pub(crate) const LONGEST: &str = "attention_metadata";
    pub(crate) const READS: &str = "score_positions";
}

/// What a graph's metadata promises, held against its inputs and outputs.
#[derive(Debug, Clone)]
pub(crate) struct PackedContract {
    pub(crate) model: PackedModel,
    /// Whether it takes `token_type_ids`.
    pub(crate) takes_segments: bool,
    /// Whether it takes `position_ids`.
    pub(crate) takes_positions: bool,
    pub(crate) caches: Vec<Cache>,
    /// The shape of a cache behind its blocks.
    pub(crate) block: [usize; 3],
    /// The number format of the caches.
    pub(crate) element: ElementType,
    /// Whose logits it gives.
    pub(crate) logits: LogitColumns,
}

/// The keys or values of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    /// The input that takes it.
    pub(crate) input: String,
    /// The output that gives it back, in the same memory.
    pub(crate) output: Option<String>,
}

impl PackedContract {
    pub(super) fn read(promise: &Promise<'_>) -> Result<Self, RuntimeError> {
        use ElementType::{Int32, Int64};

        let causal = match promise.text("karat.causal") {
            Some("true") => true,
            Some("false") => false,
            written => {
                let written = written.unwrap_or("missing");
                return Err(refuse(
                    format!("the graph's metadata karat.causal is {written}"),
                    "write true where a token sees only those before it, else false",
                ));
            }
        };
        let tokens = promise.number("karat.block_size")?;
        if tokens != BLOCK_TOKENS {
            return Err(refuse(
                format!("the graph's blocks hold {tokens} tokens"),
                format!("export it with blocks of {BLOCK_TOKENS}, which is all that FlashAttention takes"),
            ));
        }
        let layers = promise.number("karat.layers")?;
        let block = [tokens, promise.number("karat.kv_heads")?, promise.number("karat.head_dim")?];
        let caches = (0..if causal { layers } else { 1 }).flat_map(|layer| {
            ["key", "value"].map(|what| Cache {
                input: format!("{what}_cache.{layer}"),
                output: causal.then(|| format!("{what}_cache_out.{layer}")),
            })
        });
        let caches: Vec<Cache> = caches.collect();
        let inputs = &promise.signature.inputs;
        let element = promise.find(inputs, "key_cache.0")?.element;
        if !element.is_float() {
            return Err(refuse(format!("input \"key_cache.0\" holds {element}"), "export it as float"));
        }
        let [takes_segments, takes_positions] =
            [names::SEGMENTS, names::POSITIONS].map(|name| inputs.iter().any(|input| input.name == name));
        let fixed = [
            (names::INPUT_IDS, Int64, 1),
            (names::ROW_STARTS, Int32, 1),
            (names::PASTS, Int32, 1),
            (names::BLOCKS, Int32, 2),
            (names::LONGEST, Int32, 1),
            (names::READS, Int64, 1),
        ];
        let optional = [
            (takes_segments, names::SEGMENTS),
            (takes_positions, names::POSITIONS),
            (causal, names::EXPAND),
            (causal, names::CONTRACT),
        ];
        let optional = optional.into_iter().filter(|(is_taken, _)| *is_taken).map(|(_, name)| (name, Int64, 1));
        let of_caches = caches.iter().map(|cache| (cache.input.as_str(), element, 4));
        promise.takes(fixed.into_iter().chain(optional).chain(of_caches))?;
        for cache in &caches {
            fits(promise.find(inputs, &cache.input)?, block)?;
        }
        let kept: Vec<String> = caches.iter().filter_map(|cache| cache.output.clone()).collect();
        let outputs = promise.gives(&kept, element)?;
        let logits = promise.logits(&outputs)?;
        let number = if element == ElementType::Float32 { 4 } else { 2 };
        let model = PackedModel {
            block_bytes: caches.len() * block.iter().product::<usize>() * number,
            context: promise.number("karat.context")?,
            causal,
            padding: promise.padding()?,
            needs: promise.needs()?,
            outputs,
        };
        Ok(Self { model, takes_segments, takes_positions, caches, block, element, logits })
    }
}

/// Whether a cache has the shape that the metadata says: what runs on a GPU trusts it.
fn fits(cache: &TensorSpec, block: [usize; 3]) -> Result<(), RuntimeError> {
    let same = |(dimension, size): (&Dimension, usize)| match dimension {
        Dimension::Fixed(fixed) => *fixed == size,
        Dimension::Dynamic(_) => true,
    };
    let open = matches!(cache.shape.first(), Some(Dimension::Dynamic(_)));
    if open && cache.shape.iter().skip(1).zip(block).all(same) {
        return Ok(());
    }
    let [tokens, heads, width] = block;
    Err(refuse(
        format!("{cache} is not what the graph's metadata says of it"),
        format!("export it as [blocks, {tokens}, {heads}, {width}], with any number of blocks"),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use karat_rules::domain::GraphSignature;

    use super::{super::testing::tensor, *};
    use crate::Padding;

    fn signature() -> GraphSignature {
        use ElementType::{Float16, Float32, Int32, Int64};
        GraphSignature {
            inputs: vec![
                tensor("input_ids", Int64, 1),
                tensor("expand", Int64, 1),
                tensor("contract", Int64, 1),
                tensor("cumulative_sequence_length", Int32, 1),
                tensor("past_seqlens", Int32, 1),
                tensor("block_table", Int32, 2),
                tensor("attention_metadata", Int32, 1),
                tensor("score_positions", Int64, 1),
                tensor("key_cache.0", Float16, 4),
                tensor("value_cache.0", Float16, 4),
            ],
            outputs: vec![
                tensor("scores", Float32, 2),
                tensor("key_cache_out.0", Float16, 4),
                tensor("value_cache_out.0", Float16, 4),
            ],
        }
    }

    fn metadata() -> BTreeMap<String, String> {
        let pairs = [
            ("karat.layers", "1"),
            ("karat.kv_heads", "2"),
            ("karat.head_dim", "8"),
            ("karat.context", "64"),
            ("karat.block_size", "256"),
            ("karat.causal", "true"),
            ("karat.pad_id", "3"),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn read(metadata: &BTreeMap<String, String>, signature: &GraphSignature) -> Result<PackedContract, RuntimeError> {
        PackedContract::read(&Promise { name: NAME, metadata, signature })
    }

    #[test]
    fn the_contract_is_read() {
        let contract = read(&metadata(), &signature()).unwrap();
        assert_eq!(contract.model.block_bytes, 2 * 256 * 2 * 8 * 2);
        assert_eq!((contract.model.context, contract.model.padding), (64, Some(Padding::LastOther(3))));
        assert_eq!(contract.model.outputs, [tensor("scores", ElementType::Float32, 2)]);
        assert!(contract.model.causal && !contract.takes_segments);
        assert_eq!(contract.caches[1].output.as_deref(), Some("value_cache_out.0"));
    }

    #[test]
    fn a_model_that_looks_both_ways_has_one_pair_of_caches_which_stays_inside() {
        let (mut metadata, mut signature) = (metadata(), signature());
        metadata.insert("karat.causal".to_owned(), "false".to_owned());
        metadata.insert("karat.layers".to_owned(), "12".to_owned());
        signature.outputs.truncate(1);
        signature.inputs.retain(|input| !["expand", "contract"].contains(&input.name.as_str()));
        signature.inputs.push(tensor("token_type_ids", ElementType::Int64, 1));
        signature.inputs.push(tensor("position_ids", ElementType::Int64, 1));
        let contract = read(&metadata, &signature).unwrap();
        assert_eq!(contract.caches.len(), 2);
        assert!(contract.takes_segments && contract.takes_positions);
        assert!(contract.caches.iter().all(|cache| cache.output.is_none()));
    }

    #[test]
    fn a_broken_promise_is_named() {
        type Mistake = fn(&mut BTreeMap<String, String>, &mut GraphSignature);
        let mistakes: [(&str, Mistake); 9] = [
            ("karat.causal is missing", |metadata, _| drop(metadata.remove("karat.causal"))),
            ("hold 16 tokens", |metadata, _| drop(metadata.insert("karat.block_size".to_owned(), "16".to_owned()))),
            ("karat.context is missing", |metadata, _| drop(metadata.remove("karat.context"))),
            ("key_cache.1", |metadata, _| drop(metadata.insert("karat.layers".to_owned(), "2".to_owned()))),
            ("as int32", |_, signature| signature.inputs[5].element = ElementType::Int64),
            ("[blocks, 256, 2, 8]", |_, signature| signature.inputs[8].shape[3] = Dimension::Fixed(4)),
            ("any number of blocks", |_, signature| signature.inputs[8].shape[0] = Dimension::Fixed(4)),
            ("value_cache_out.0", |_, signature| drop(signature.outputs.pop())),
            ("feeds", |_, signature| signature.inputs.push(tensor("attention_mask", ElementType::Int64, 1))),
        ];
        for (part, mistake) in mistakes {
            let (mut metadata, mut signature) = (metadata(), signature());
            mistake(&mut metadata, &mut signature);
            let error = read(&metadata, &signature).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
