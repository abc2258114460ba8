//! Attention by ONNX Runtime's `PagedAttention`, which takes packed queries, keys and values, norms and turns them, and
//! writes keys and values into blocks.

use super::{
    super::nodes::{Attribute, Nodes, signed},
    BLOCKS, Heads, LONGEST, Layer, PASTS, ROW_STARTS, Rotation, caches,
};

/// What all layers share.
pub(super) struct Paged {
    heads: Heads,
    /// Cosines and sines of each rotation, `[context, head_dim / 2]`.
    tables: Vec<[String; 2]>,
}

impl Paged {
    pub(super) fn new(nodes: &mut Nodes<'_>, heads: Heads, rotations: &[Rotation], context: usize) -> Self {
        let mut table = |(number, rotation): (usize, &Rotation)| {
            let (frequencies, factors) = rotation;
            let shape = [context, frequencies.len()];
            let mut of = |what: &str, function: fn(f32) -> f32| {
                let line = |position: usize| {
                    // In 32 bits, as the reference computes it.
                    #[expect(clippy::cast_precision_loss, reason = "positions are small whole numbers")]
                    let turn = move |frequency: &f32| function(position as f32 * frequency);
                    frequencies.iter().map(turn).zip(factors).map(|(turned, factor)| turned * factor)
                };
                let values: Vec<f32> = (0..context).flat_map(line).collect();
                nodes.numbers(&format!("{what}_{number}"), &shape, &values)
            };
            [of("cosines", f32::cos), of("sines", f32::sin)]
        };
        let tables = rotations.iter().enumerate().map(&mut table).collect();
        Self { heads, tables }
    }

    pub(super) fn attend(&self, nodes: &mut Nodes<'_>, layer: &Layer, rows: &str) -> String {
        let Heads { heads, kv_heads, scale, cap, causal, .. } = self.heads;
        let [[keys, keys_out], [values, values_out]] = caches(layer.cache);
        let table = layer.rotation.and_then(|rotation| self.tables.get(rotation));
        let [cosines, sines] = table.map_or(["", ""], |[cosines, sines]| [cosines, sines]);
        let [queries_norm, keys_norm] = layer.norms.as_ref().map_or(["", ""], |norms| [&norms.queries, &norms.keys]);
        // Keys and values stand in `rows`, slots follow from the blocks, and caches are not quantised.
        let inputs = [
            rows,
            "",
            "",
            &keys,
            &values,
            ROW_STARTS,
            PASTS,
            BLOCKS,
            cosines,
            sines,
            "",
            "",
            queries_norm,
            keys_norm,
            "",
            "",
            LONGEST,
        ];
        let mut attributes = vec![
            ("num_heads", Attribute::Int(signed(heads))),
            ("kv_num_heads", Attribute::Int(signed(kv_heads))),
            ("scale", Attribute::Number(scale)),
            ("do_rotary", Attribute::Int(i64::from(table.is_some()))),
            ("is_causal", Attribute::Int(i64::from(causal))),
        ];
        attributes.extend(cap.map(|cap| ("softcap", Attribute::Number(cap))));
        attributes.extend(layer.window.map(|window| ("local_window_size", Attribute::Int(signed(window)))));
        attributes.extend(layer.norms.as_ref().map(|norms| ("qk_norm_epsilon", Attribute::Number(norms.epsilon))));
        let drawn = format!("PagedAttention_{}", nodes.nodes.len());
        let mut outputs = vec![drawn.clone()];
        if causal {
            outputs.extend([keys_out, values_out]);
        }
        nodes.push_fused("PagedAttention", &inputs, &outputs, &attributes);
        drawn
    }
}
