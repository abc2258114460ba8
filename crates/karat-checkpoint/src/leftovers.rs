//! Tensors that no graph reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    decided::{Decided, Gating},
    problems::Problems,
    weights::Weights,
};

/// Tensors that a graph doesn't need: tables that are computed anew, and heads that aren't read.
const UNUSED: &[&str] = &[
    "rotary_emb.inv_freq",
    "lm_head.weight",
    "attn.bias",
    "attn.masked_bias",
    "position_ids",
    "embeddings.token_type_ids",
    "lm_predictions.",
    "mask_predictions.",
    "num_batches_tracked",
    "normalizer.",
    "cls.predictions.",
    "cls.seq_relationship.",
    "lm_head.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
];

/// Refuses tensors that the graph never reads, or not all of: they are the sign of a part of the model that isn't known
/// here, or that has another size.
pub(crate) fn refuse(weights: &Weights, decided: &Decided, problems: &mut Problems) {
    let Decided { graph, gating, .. } = decided;
    let sources = graph.tensors.iter().flat_map(|tensor| &tensor.sources);
    let used: BTreeSet<&str> = sources.map(|source| source.tensor.as_str()).collect();
    let left: Vec<&str> = weights
        .names()
        .filter(|name| {
            !used.contains(name)
                && !weights.is_replaced_by_some(name)
                && !UNUSED
                    .iter()
                    .any(|unused| name.ends_with(unused) || (unused.ends_with('.') && name.starts_with(unused)))
        })
        .collect();
    let mut read: BTreeMap<&str, usize> = BTreeMap::new();
    let sources = graph.tensors.iter().flat_map(|tensor| &tensor.sources);
    for source in sources.filter(|source| !source.rows.is_empty()) {
        *read.entry(&source.tensor).or_default() += source.rows.iter().map(ExactSizeIterator::len).sum::<usize>();
    }
    for (name, read) in read {
        let rows = weights.shape(name).and_then(|shape| shape.first().copied()).unwrap_or(read);
        // Of each objective of such a head, the variance stands beside it.
        let variances = matches!(gating, Some(Gating::AtScore)) && rows == 2 * read;
        if read < rows && !variances {
            problems.add::<()>(format!("{name} has {rows} rows, and by config.json it should have {read}"));
        }
    }
    if !left.is_empty() {
        let some = left.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        problems.add::<()>(format!("{} tensors have no place in this architecture, such as {some}", left.len()));
    }
}
