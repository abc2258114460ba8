//! Rotary positions: the angle that each pair of dimensions turns by at each position.

use serde_json::Value;

use crate::{
    config::{Config, positive},
    problems::Problems,
};

const DEFAULT_THETA: f64 = 10_000.0;

/// How fast each pair of dimensions turns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Radians a position at the slowest pair's inverse: θ.
    pub(crate) theta: f64,
    /// What stretches the rotations.
    pub(crate) scaling: Scaling,
}

/// What stretches the rotations for contexts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scaling {
    /// Nothing.
    None,
    /// All by one factor (Chen et al. 2023, "Extending Context Window of Large Language Models via Positional
    /// Interpolation").
    Linear { factor: f64 },
    /// The slow ones by a factor, the fast ones not, those between in proportion (Llama 3.1).
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
    /// By a ramp over dimensions, with a temperature (Peng et al. 2023, "YaRN").
    Yarn { factor: f64, fast: f64, slow: f64, original: f64, attention: f64, truncates: bool },
}

impl Rope {
    /// The rule of `rope_parameters`, or of the older `rope_theta` and `rope_scaling`. `context` is the longest position.
    pub(crate) fn read(config: &Config, context: usize, problems: &mut Problems) -> Option<Self> {
        let empty = Value::Null;
        let newer = config.get("rope_parameters");
        let older = config.get("rope_scaling");
        let table = newer.or(older).unwrap_or(&empty);
        if table.as_object().is_some_and(|table| table.values().any(Value::is_object)) {
            return problems
                .add("config.json: rope_parameters differ by layer type, which this architecture doesn't have");
        }
        let theta = match table.get("rope_theta") {
            Some(theta) => positive("rope_theta", theta, problems)?,
            None => config.positive_or("rope_theta", DEFAULT_THETA, problems)?,
        };
        config.know(&["rope_theta"]);
        if table.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|factor| (factor - 1.0).abs() > 0.0) {
            return problems.add("config.json: partial_rotary_factor other than 1 is not what this architecture has");
        }
        let kind = table.get("rope_type").or_else(|| table.get("type")).and_then(Value::as_str);
        let mut number = |key: &str| match table.get(key) {
            Some(value) => positive(key, value, problems),
            None => problems.add(format!("config.json: the rope scaling lacks {key}")),
        };
        let scaling = match kind {
            // Dynamic scaling changes nothing within the context that was trained, and longer samples are refused.
            None | Some("default" | "dynamic") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: number("factor")? },
            Some("llama3") => Scaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            },
            Some("yarn") => yarn(table, context, problems)?,
            Some(other) => {
                return problems.add(format!(
                    "config.json: rope scaling {other:?} is not known; known are default, linear, dynamic, llama3 and yarn"
                ));
            }
        };
        Some(Self { theta, scaling })
    }

    /// Rotations that nothing stretches.
    pub(crate) fn plain(theta: f64) -> Self {
        Self { theta, scaling: Scaling::None }
    }

    /// Radians a position for each pair of dimensions.
    ///
    /// RoFormer (Su et al. 2021): θ^(-2i/d), stretched as the scaling says. In 32 bits from the powers on, as the
    /// reference computes it.
    #[expect(clippy::cast_possible_truncation, reason = "the reference rounds where this does")]
    pub(crate) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let pairs = head_dim / 2;
        let plain = (0..pairs).map(|pair| {
            let exponent = (2 * pair) as f32 / head_dim as f32;
            1.0 / (self.theta as f32).powf(exponent)
        });
        match self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|frequency| frequency / factor as f32).collect(),
            Scaling::Llama3 { factor, low, high, original } => plain
                .map(|frequency| {
                    let turns = original * f64::from(frequency) / std::f64::consts::TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    ((1.0 - kept) * f64::from(frequency) / factor + kept * f64::from(frequency)) as f32
                })
                .collect(),
            Scaling::Yarn { factor, fast, slow, original, truncates, .. } => {
                let size = head_dim as f64;
                let dimension =
                    |turns: f64| size * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln());
                let (mut first, mut last) = (dimension(fast), dimension(slow));
                if truncates {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, mut last) = (first.max(0.0), last.min(size - 1.0));
                if (last - first).abs() < f64::EPSILON {
                    last += 0.001;
                }
                plain
                    .enumerate()
                    .map(|(pair, frequency)| {
                        let ramp = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                        let frequency = f64::from(frequency);
                        (ramp * frequency / factor + (1.0 - ramp) * frequency) as f32
                    })
                    .collect()
            }
        }
    }

    /// What cosines and sines are multiplied by.
    pub(crate) fn temperature(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention, .. } => attention,
            Scaling::None | Scaling::Linear { .. } | Scaling::Llama3 { .. } => 1.0,
        }
    }
}

fn yarn(table: &Value, context: usize, problems: &mut Problems) -> Option<Scaling> {
    let mut optional = |key: &str| match table.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(value) => positive(key, value, problems).map(Some),
    };
    let original = optional("original_max_position_embeddings")?;
    let factor = optional("factor")?;
    let (fast, slow) = (optional("beta_fast")?.unwrap_or(32.0), optional("beta_slow")?.unwrap_or(1.0));
    let (scale, scale_all) = (optional("mscale")?, optional("mscale_all_dim")?);
    let attention = optional("attention_factor")?;
    let context = context as f64;
    let (original, factor) = match (original, factor) {
        (Some(original), Some(factor)) => (original, factor),
        (Some(original), None) => (original, context / original),
        (None, Some(factor)) => (context, factor),
        (None, None) => return problems.add("config.json: the yarn scaling lacks factor"),
    };
    let grown = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let attention = attention.unwrap_or_else(|| match (scale, scale_all) {
        (Some(scale), Some(all)) => grown(scale) / grown(all),
        _ => grown(1.0),
    });
    let truncates = table.get("truncate").and_then(Value::as_bool).unwrap_or(true);
    Some(Scaling::Yarn { factor, fast, slow, original, attention, truncates })
}
