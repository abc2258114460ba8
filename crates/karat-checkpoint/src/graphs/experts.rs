//! A layer's MLP as a mixture of experts, of which a router chooses a few for each token (Shazeer et al. 2017,
//! "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer").
//!
//! Each expert gathers the tokens that it was chosen for and adds what it makes of them: nothing is computed for the
//! others. Only standard operators are used.

use super::nodes::{Attribute, Nodes};
use crate::trunks::{Decoder, Expert, Experts, Part};

/// What the experts of `layer` make of `state` `[m, hidden]`, `[m, hidden]`.
pub(super) fn build(nodes: &mut Nodes<'_>, trunk: &Decoder, experts: &Experts, layer: usize, state: &str) -> String {
    let weights = weights(nodes, trunk, experts, layer, state);
    let nothing = nodes.number("nothing", 0.0);
    let mut sum = nodes.add("Mul", &[state, &nothing]);
    let (flat, column) = (nodes.shape(&[-1]), nodes.shape(&[-1, 1]));
    for expert in 0..experts.count {
        let number = nodes.integer(&format!("expert_{expert}"), i64::try_from(expert).unwrap_or(i64::MAX));
        let weight = nodes.add_with("Gather", &[&weights, &number], &[("axis", Attribute::Int(1))]);
        let chosen = nodes.add("NonZero", &[&weight]);
        let chosen = nodes.add("Reshape", &[&chosen, &flat]);
        let own = nodes.add("Gather", &[state, &chosen]);
        let part = |part| trunk.piece(layer, Part::Expert(expert, part));
        if let Some(changed) = [Expert::Gate, Expert::Up, Expert::Down].map(part).iter().find(|own| nodes.differs(own))
        {
            nodes.problems.add::<()>(format!(
                "the adapters change {}, and experts are everybody's in an ensemble; serve each as a model by itself",
                changed.tensor
            ));
            return sum;
        }
        let inner = [experts.intermediate, trunk.hidden];
        let gate = nodes.linear(&part(Expert::Gate), &own, inner, false);
        let gate = nodes.activation(trunk.activation, &gate);
        let up = nodes.linear(&part(Expert::Up), &own, inner, false);
        let product = nodes.add("Mul", &[&gate, &up]);
        let given = nodes.linear(&part(Expert::Down), &product, [trunk.hidden, experts.intermediate], false);
        let weight = nodes.add("Gather", &[&weight, &chosen]);
        let weight = nodes.add("Reshape", &[&weight, &column]);
        let given = nodes.add("Mul", &[&given, &weight]);
        let places = nodes.add("Reshape", &[&chosen, &column]);
        let add = [("reduction", Attribute::Text("add"))];
        sum = nodes.add_with("ScatterND", &[&sum, &places, &given], &add);
    }
    sum
}

/// How much each expert counts for each token, `[m, experts]`: 0 of those that aren't chosen.
fn weights(nodes: &mut Nodes<'_>, trunk: &Decoder, experts: &Experts, layer: usize, state: &str) -> String {
    let last = || [("axis", Attribute::Int(-1))];
    let router = trunk.piece(layer, Part::Router);
    let likings = nodes.linear(&router, state, [experts.count, trunk.hidden], false);
    let shares = nodes.add_with("Softmax", &[&likings], &last());
    let used = nodes.integers("experts_used", &[i64::try_from(experts.used).unwrap_or(i64::MAX)]);
    let [values, places] = nodes.top(&shares, &used);
    let values = if experts.normalised {
        let axis = nodes.integers("last_axis", &[-1]);
        let sum = nodes.add("ReduceSum", &[&values, &axis]);
        nodes.add("Div", &[&values, &sum])
    } else {
        values
    };
    let nothing = nodes.number("nothing", 0.0);
    let none = nodes.add("Mul", &[&shares, &nothing]);
    nodes.add_with("ScatterElements", &[&none, &places, &values], &last())
}
