//! A layer's MLP as a mixture of experts, of which a router chooses a few for each token (Shazeer et al. 2017,
//! "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer").
//!
//! Each expert sees the tokens that it was chosen for and no others: the tokens' states are put in the order of their experts,
//! once for each that is used, and each expert's part of them is a product of its own. Only standard operators are used.
//! The router computes in 32 bits, whatever the experts compute in: what 16 bits would change is which of them are chosen.

use super::nodes::{Attribute, Nodes, signed};
use crate::trunks::{Decoder, Expert, Experts, Part};

/// What the experts of `layer` make of `state` `[m, hidden]`, `[m, hidden]`.
pub(super) fn build(nodes: &mut Nodes<'_>, trunk: &Decoder, experts: &Experts, layer: usize, state: &str) -> String {
    let part = |expert, part| trunk.piece(layer, Part::Expert(expert, part));
    let pieces =
        (0..experts.count).flat_map(|expert| [Expert::Gate, Expert::Up, Expert::Down].map(|of| part(expert, of)));
    if let Some(changed) = pieces.into_iter().find(|piece| nodes.differs(piece)) {
        nodes.problems.add::<()>(format!(
            "the adapters change {}, and experts are everybody's in an ensemble; serve each as a model by itself",
            changed.tensor
        ));
        return state.to_owned();
    }
    let Routed { weights, tokens, counts, places } = route(nodes, trunk, experts, layer, state);
    let sorted = nodes.add("Gather", &[state, &tokens]);
    let name = format!("Split_{}", nodes.nodes.len());
    let own: Vec<String> = (0..experts.count).map(|expert| format!("{name}_{expert}")).collect();
    nodes.push("Split", &[&sorted, &counts], &own, &[("axis", Attribute::Int(0))]);
    let mut given = Vec::new();
    for (expert, own) in own.iter().enumerate() {
        let inner = [experts.intermediate, trunk.hidden];
        let gate = nodes.linear(&part(expert, Expert::Gate), own, inner, false);
        let gate = nodes.activation(trunk.activation, &gate);
        let up = nodes.linear(&part(expert, Expert::Up), own, inner, false);
        let product = nodes.add("Mul", &[&gate, &up]);
        let product = nodes.rounded(&product);
        let outer = [trunk.hidden, experts.intermediate];
        given.push(nodes.linear(&part(expert, Expert::Down), &product, outer, false));
    }
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let given = nodes.add_with("Concat", &given, &[("axis", Attribute::Int(0))]);
    let given = nodes.add("Gather", &[&given, &places]);
    let row = nodes.shape(&[-1, 1, signed(experts.used)]);
    let weights = nodes.add("Reshape", &[&weights, &row]);
    let sum = nodes.add("MatMul", &[&weights, &given]);
    let sum = nodes.grouped(&sum, &[trunk.hidden]);
    nodes.rounded(&sum)
}

/// Which experts see which tokens.
struct Routed {
    /// How much each expert that is used counts for a token, `[m, used]`.
    weights: String,
    /// The tokens of the first expert, then those of the second, and so on, `[m · used]`.
    tokens: String,
    /// How many tokens each expert sees, `[experts]`.
    counts: String,
    /// Where each of a token's experts has it among these, `[m, used]`.
    places: String,
}

fn route(nodes: &mut Nodes<'_>, trunk: &Decoder, experts: &Experts, layer: usize, state: &str) -> Routed {
    let router = trunk.piece(layer, Part::Router);
    let mut chosen = String::new();
    let weights = nodes.in_32_bits(state, |nodes, state| {
        let likings = nodes.within(|nodes| nodes.linear(&router, state, [experts.count, trunk.hidden], false));
        let shares = nodes.add_with("Softmax", &[&likings], &[("axis", Attribute::Int(-1))]);
        let used = nodes.integers("experts_used", &[signed(experts.used)]);
        let values;
        [values, chosen] = nodes.top(&shares, &used);
        if !experts.normalised {
            return values;
        }
        let axis = nodes.integers("last_axis", &[-1]);
        let sum = nodes.add("ReduceSum", &[&values, &axis]);
        nodes.add("Div", &[&values, &sum])
    });
    let weights = nodes.rounded(&weights);

    // Of each token and expert, whether that one was chosen. Row by row, those are the tokens in the order of their experts.
    let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
    let by_token = nodes.add("Shape", &[&chosen]);
    let (first, count) = (nodes.integers("first", &[0]), nodes.integers("experts", &[signed(experts.count)]));
    let tokens = nodes.add("Gather", &[&by_token, &first]);
    let table = nodes.add_with("Concat", &[&tokens, &count], &[("axis", Attribute::Int(0))]);
    let none = nodes.add("Expand", &[&zero, &table]);
    let ones = nodes.add("Expand", &[&one, &by_token]);
    let last = || [("axis", Attribute::Int(1))];
    let is_chosen = nodes.add_with("ScatterElements", &[&none, &chosen, &ones], &last());
    let swap = || [("perm", Attribute::Ints(&[1, 0]))];
    let by_expert = nodes.add_with("Transpose", &[&is_chosen], &swap());
    let pairs = nodes.add("NonZero", &[&by_expert]);
    let tokens = nodes.add_with("Gather", &[&pairs, &one], &[("axis", Attribute::Int(0))]);
    let rows = nodes.integers("axis_0", &[0]);
    let counts = nodes.add_with("ReduceSum", &[&is_chosen, &rows], &[("keepdims", Attribute::Int(0))]);

    // The same table with the place of each pair, from which each token takes its own.
    let pairs = nodes.add_with("Transpose", &[&pairs], &swap());
    let all = nodes.add("Size", &[&chosen]);
    let order = nodes.add("Range", &[&zero, &all, &one]);
    let none = nodes.add_with("Transpose", &[&none], &swap());
    let places = nodes.add("ScatterND", &[&none, &pairs, &order]);
    let places = nodes.add_with("Transpose", &[&places], &swap());
    let places = nodes.add_with("GatherElements", &[&places, &chosen], &last());
    Routed { weights, tokens, counts, places }
}
