//! Rotary positions: the angle that each pair of dimensions turns by at each position.

use serde_json::Value;

use crate::{
    config::{Config, positive},
    problems::Problems,
    trunks::Piece,
};

const DEFAULT_THETA: f64 = 10_000.0;
const ORIGINAL: &str = "original_max_position_embeddings";

/// Which dimensions of a head are turned, and in which pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotary {
    /// How many, from the first one on: even. The others are the same at every position.
    pub(crate) turned: usize,
    /// Whether dimensions 2i and 2i + 1 are a pair; otherwise i and i + `turned` / 2 are.
    pub(crate) neighbours: bool,
}

impl Rotary {
    /// What `partial_rotary_factor` says of heads of `head_dim` dimensions. `share` are turned where it is missing; where
    /// that is `None`, the family has no such key, and all are.
    pub(crate) fn read(config: &Config, head_dim: usize, share: Option<f64>, problems: &mut Problems) -> Option<Self> {
        const KEY: &str = "partial_rotary_factor";
        let tables = ["rope_parameters", "rope_scaling"].into_iter().filter_map(|table| config.get(table)?.get(KEY));
        let said = match share {
            None => tables.into_iter().next(),
            Some(_) => tables.chain(config.get(KEY)).next(),
        };
        let said = match said {
            Some(value) => positive(KEY, value, problems)?,
            None => share.unwrap_or(1.0),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small whole number")]
        let turned = (head_dim as f64 * said) as usize;
        let whole = turned == head_dim;
        if turned == 0 || turned > head_dim || !turned.is_multiple_of(2) || (share.is_none() && !whole) {
            return problems.add(format!(
                "config.json: {KEY} {said} turns {turned} of {head_dim} dimensions, which this architecture doesn't have"
            ));
        }
        Some(Self { turned, neighbours: false })
    }

    /// `piece` with the rows of each head in such an order that pair i is dimensions i and i + `head_dim` / 2, those that
    /// are turned first: likenesses stay what they are as long as queries and keys have the same order.
    pub(crate) fn ordered(self, piece: Piece, heads: usize, head_dim: usize) -> Piece {
        if self.turned == head_dim && !self.neighbours {
            return piece;
        }
        let turned = self.turned / 2;
        let first = |pair: usize| match (pair < turned, self.neighbours) {
            (true, true) => 2 * pair,
            (true, false) => pair,
            (false, _) => turned + pair,
        };
        let second = |pair: usize| match (pair < turned, self.neighbours) {
            (true, true) => 2 * pair + 1,
            (true, false) => turned + pair,
            (false, _) => head_dim / 2 + pair,
        };
        let pairs = || 0..head_dim / 2;
        let order: Vec<usize> = pairs().map(first).chain(pairs().map(second)).collect();
        piece.reordered(heads, &order)
    }
}

/// How fast each pair of dimensions turns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Radians a position at the slowest pair's inverse: θ.
    pub(crate) theta: f64,
    /// What stretches the rotations.
    pub(crate) scaling: Scaling,
}

/// What stretches the rotations for contexts longer than those of the first training.
#[derive(Debug, Clone, PartialEq)]
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
    /// Each pair by a factor of its own, with a temperature (Ding et al. 2024, "Extending LLM Context Window Beyond 2
    /// Million Tokens"). The factors are those of texts up to `original` tokens: longer ones have others from their first
    /// token on, so that their keys couldn't be shared with shorter ones.
    Long { factors: Vec<f64>, attention: f64, original: usize },
}

impl Rope {
    /// The rule of `rope_parameters`, or of the older `rope_scaling` and the key that is θ's. `context` is the longest
    /// position.
    pub(crate) fn read(config: &Config, theta: &str, context: usize, problems: &mut Problems) -> Option<Self> {
        let newer = config.get("rope_parameters");
        let table = config.get("rope_scaling").filter(|_| newer.is_none()).or(newer).unwrap_or(&Value::Null);
        if table.as_object().is_some_and(|table| table.values().any(Value::is_object)) {
            return problems
                .add("config.json: rope_parameters differ by layer type, which this architecture doesn't have");
        }
        let theta = config.positive_or(theta, DEFAULT_THETA, problems)?;
        // What stands beside the table counts before what stands in it.
        let original = match config.get(ORIGINAL) {
            Some(original) => Some(positive(ORIGINAL, original, problems)?),
            None => None,
        };
        Self::of(table, theta, original, context, problems)
    }

    /// The rules of layers that see everything, and of those with a window; `thetas` where they don't say themselves.
    pub(crate) fn by_kind(config: &Config, thetas: [f64; 2], problems: &mut Problems) -> Option<Vec<Self>> {
        let context = config.count("max_position_embeddings", problems)?;
        let by_kind = config.get("rope_parameters");
        // Older files have one table, for the layers that see everything.
        let older = config.get("rope_scaling").filter(|_| by_kind.is_none());
        let table = |kind| by_kind.and_then(|by_kind| by_kind.get(kind));
        let tables = [table("full_attention").or(older), table("sliding_attention")];
        let rules = tables.into_iter().zip(thetas);
        rules.map(|(table, theta)| Self::of(table.unwrap_or(&Value::Null), theta, None, context, problems)).collect()
    }

    /// The rule of a table. `theta` is taken where it doesn't say itself; the context of the first training is `original`
    /// where that is given, whatever the table says.
    pub(crate) fn of(
        table: &Value,
        theta: f64,
        original: Option<f64>,
        context: usize,
        problems: &mut Problems,
    ) -> Option<Self> {
        let theta = match table.get("rope_theta") {
            Some(theta) => positive("rope_theta", theta, problems)?,
            None => theta,
        };
        let kind = table.get("rope_type").or_else(|| table.get("type")).and_then(Value::as_str);
        let mut number = |key: &str| match table.get(key) {
            Some(value) => positive(key, value, problems),
            None => problems.add(format!("config.json: the rope scaling lacks {key}")),
        };
        let scaling = match kind {
            _ if is_long(table) => long(table, original, context, problems)?,
            // Dynamic scaling changes nothing within the context that was trained, and longer samples are refused.
            None | Some("default" | "dynamic") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: number("factor")? },
            Some("llama3") => Scaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: original.map_or_else(|| number(ORIGINAL), Some)?,
            },
            Some("yarn") => yarn(table, original, context, problems)?,
            Some(other) => {
                return problems.add(format!(
                    "config.json: rope scaling {other:?} is not known; known are default, linear, dynamic, llama3, yarn \
                     and longrope"
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
        match &self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|frequency| frequency / *factor as f32).collect(),
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
                let (mut first, mut last) = (dimension(*fast), dimension(*slow));
                if *truncates {
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
            Scaling::Long { factors, .. } => {
                plain.zip(factors).map(|(frequency, factor)| frequency / *factor as f32).collect()
            }
        }
    }

    /// What cosines and sines are multiplied by.
    pub(crate) fn temperature(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention, .. } | Scaling::Long { attention, .. } => attention,
            Scaling::None | Scaling::Linear { .. } | Scaling::Llama3 { .. } => 1.0,
        }
    }

    /// The most tokens of a text that turn this way, where longer ones turn another.
    pub(crate) fn exact_up_to(&self) -> Option<usize> {
        match self.scaling {
            Scaling::Long { original, .. } => Some(original),
            Scaling::None | Scaling::Linear { .. } | Scaling::Llama3 { .. } | Scaling::Yarn { .. } => None,
        }
    }
}

/// Whether a table has a factor for each pair; older files have other names for that.
fn is_long(table: &Value) -> bool {
    let kind = table.get("rope_type").or_else(|| table.get("type")).and_then(Value::as_str);
    matches!(kind, Some("longrope" | "su")) || (kind == Some("yarn") && table.get("short_factor").is_some())
}

fn long(table: &Value, original: Option<f64>, context: usize, problems: &mut Problems) -> Option<Scaling> {
    let mut optional = |key: &str| match table.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(value) => positive(key, value, problems).map(Some),
    };
    let (factor, attention) = (optional("factor")?, optional("attention_factor")?);
    let original = original.or(optional(ORIGINAL)?).unwrap_or(context as f64);
    let factors = table.get("short_factor").and_then(Value::as_array);
    let factors: Option<Vec<f64>> = factors.and_then(|factors| factors.iter().map(Value::as_f64).collect());
    let Some(factors) = factors.filter(|factors| factors.iter().all(|factor| *factor > 0.0)) else {
        return problems.add("config.json: longrope lacks short_factor, a list of numbers above 0");
    };
    let factor = factor.unwrap_or(context as f64 / original);
    let attention = attention.unwrap_or_else(|| match factor > 1.0 {
        true => (1.0 + factor.ln() / original.ln()).sqrt(),
        false => 1.0,
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of tokens")]
    let original = original as usize;
    Some(Scaling::Long { factors, attention, original })
}

fn yarn(table: &Value, original: Option<f64>, context: usize, problems: &mut Problems) -> Option<Scaling> {
    let mut optional = |key: &str| match table.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(value) => positive(key, value, problems).map(Some),
    };
    let original = original.or(optional(ORIGINAL)?);
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
