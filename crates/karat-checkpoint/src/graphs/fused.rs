//! Operators of ONNX Runtime's own that do several steps in one, for graphs in 16 bits on NVIDIA GPUs: what isn't written
//! to memory between steps is neither rounded nor waited for.

use karat_onnx::NodeProto;

use super::nodes::{Attribute, Nodes};
use crate::trunks::{Activation, Norm, NormKind, Piece, encoder::Gate};

/// Where these operators are defined.
pub(super) const FUSED_DOMAIN: &str = "com.microsoft";

impl Nodes<'_> {
    /// Adds a node of ONNX Runtime's own.
    pub(super) fn push_fused(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[String],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        self.push(operator, inputs, outputs, attributes);
        if let Some(NodeProto { domain, .. }) = self.nodes.last_mut() {
            *domain = Some(FUSED_DOMAIN.to_owned());
        }
    }

    /// Adds one with one output and gives that output's name.
    pub(super) fn fused(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        let output = format!("{operator}_{}", self.nodes.len());
        self.push_fused(operator, inputs, std::slice::from_ref(&output), attributes);
        output
    }

    /// Root-mean-square norm over the last axis. The squares are summed in 32 bits.
    pub(super) fn fused_rms_norm(&mut self, weight: &str, value: &str, epsilon: f64) -> String {
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Number(epsilon))];
        self.add_with("SimplifiedLayerNormalization", &[value, weight], &attributes)
    }

    /// A decoder's activation.
    pub(super) fn fused_activation(&mut self, activation: Activation, value: &str) -> String {
        match activation {
            // `x · sigmoid(α x)`.
            Activation::Silu => self.fused("QuickGelu", &[value], &[("alpha", Attribute::Number(1.0))]),
            Activation::Gelu => self.fused("Gelu", &[value], &[]),
            Activation::GeluTanh => self.fused("FastGelu", &[value], &[]),
            Activation::ReluSquared => {
                let positive = self.add("Relu", &[value]);
                self.add("Mul", &[&positive, &positive])
            }
        }
    }

    /// An encoder's activation of a value and the bias of the projection that it came from.
    pub(super) fn fused_gate(&mut self, gate: Gate, value: &str, bias: &str) -> String {
        match gate {
            Gate::Gelu => self.fused("BiasGelu", &[value, bias], &[]),
            Gate::GeluTanh => self.fused("FastGelu", &[value, bias], &[]),
            Gate::QuickGelu | Gate::Relu | Gate::Tanh => {
                let sum = self.add("Add", &[value, bias]);
                self.gate(gate, &sum)
            }
        }
    }

    /// A state with what was given to it, and that normed: `[sum, norm]`.
    pub(super) fn fused_sum(
        &mut self,
        piece: &Piece,
        [state, given]: [&str; 2],
        size: usize,
        norm: Norm,
    ) -> [String; 2] {
        let weight = self.norm_weight(piece, size, norm);
        let (operator, bias) = match norm.kind {
            NormKind::RootMeanSquare => ("SkipSimplifiedLayerNormalization", false),
            NormKind::Layer { bias } => ("SkipLayerNormalization", bias),
        };
        let bias = bias.then(|| self.weight(&format!("{}.bias", piece.tensor), &piece.rows, &[size], false));
        let mut inputs = vec![given, state, &weight];
        inputs.extend(bias.as_deref());
        let name = format!("{operator}_{}", self.nodes.len());
        let [sum, normal] = ["sum", "norm"].map(|what| format!("{name}_{what}"));
        let outputs = [normal.clone(), String::new(), String::new(), sum.clone()];
        self.push_fused(operator, &inputs, &outputs, &[("epsilon", Attribute::Number(norm.epsilon))]);
        [sum, normal]
    }

    /// The norm of a state with what was given to it and that one's bias, as encoders have it.
    pub(super) fn fused_norm_of_sum(
        &mut self,
        piece: &Piece,
        [state, given, bias]: [&str; 3],
        size: usize,
        epsilon: f64,
    ) -> String {
        let [scale, offset] = ["weight", "bias"]
            .map(|part| self.weight(&format!("{}.{part}", piece.tensor), &piece.rows, &[size], false));
        let attributes = [("epsilon", Attribute::Number(epsilon))];
        self.fused("SkipLayerNormalization", &[given, state, &scale, &offset, bias], &attributes)
    }
}
