//! A decoder as plain data: what a family computes, for whichever form of a graph reads it.

use serde_json::Value;

use super::names::{self, Names, Part, Piece};
use crate::{
    config::Config,
    problems::Problems,
    rope::{Rope, Rotary},
};

/// The measures and variants of a decoder.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// The width of a state.
    pub(crate) hidden: usize,
    /// How many layers.
    pub(crate) layers: usize,
    /// How many query heads a layer.
    pub(crate) heads: usize,
    /// How many heads of keys and values a layer; divides `heads`.
    pub(crate) kv_heads: usize,
    /// The width of a head, even.
    pub(crate) head_dim: usize,
    /// The width of the MLP.
    pub(crate) intermediate: usize,
    /// How many tokens have an embedding.
    pub(crate) vocabulary: usize,
    /// The most tokens for which the graph is exact.
    pub(crate) context: usize,
    /// The ways in which layers turn queries and keys by their positions.
    pub(crate) ropes: Vec<Rope>,
    /// Which dimensions of a head are turned.
    pub(crate) rotary: Rotary,
    /// How each layer looks back: as many as there are layers.
    pub(crate) sights: Vec<Sight>,
    /// The norms.
    pub(crate) norm: Norm,
    /// Where the norms of a layer stand.
    pub(crate) norms: Norms,
    /// Whether queries and keys are normed.
    pub(crate) query_key_norm: QueryKeyNorm,
    /// The MLP's activation.
    pub(crate) activation: Activation,
    /// Whether the activation gates a second projection, or stands behind the only one.
    pub(crate) gated: bool,
    /// The experts that some layers have in place of the MLP.
    pub(crate) experts: Option<Experts>,
    /// Whether queries, keys and values have a bias.
    pub(crate) qkv_bias: bool,
    /// Whether what attention gives has a bias.
    pub(crate) output_bias: bool,
    /// Whether the MLP has biases.
    pub(crate) mlp_bias: bool,
    /// What likenesses of queries and keys are multiplied by.
    pub(crate) query_scale: f64,
    /// The bound of likenesses: `cap · tanh(likeness / cap)`.
    pub(crate) attention_cap: Option<f64>,
    /// The bound of a language model's logits.
    pub(crate) logit_cap: Option<f64>,
    /// What a language model's logits are multiplied by.
    pub(crate) logit_scale: Option<f64>,
    /// What embeddings are multiplied by.
    pub(crate) embedding_scale: Option<f64>,
    /// What attention and MLP give is multiplied by before it is added.
    pub(crate) residual_scale: Option<f64>,
    /// Whether the language-model head is the table of embeddings.
    pub(crate) tied_embeddings: bool,
    /// What its tensors are called.
    pub(crate) names: Names,
}

/// How a layer looks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// How many tokens each token sees, itself included; all where there is no window.
    pub(crate) window: Option<usize>,
    /// Which of the trunk's rotations queries and keys turn by; `None` without positions.
    pub(crate) rope: Option<usize>,
}

/// MLPs of which a router chooses a few for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Experts {
    /// How many a layer has.
    pub(crate) count: usize,
    /// How many are used for a token; at most `count`.
    pub(crate) used: usize,
    /// The width of each.
    pub(crate) intermediate: usize,
    /// Whether the weights of those that are used add up to 1.
    pub(crate) normalised: bool,
    /// The layers that have them; the others have an MLP.
    pub(crate) layers: Vec<usize>,
}

impl Experts {
    /// The same, unless more are to be used than there are.
    pub(super) fn fitting(self, problems: &mut Problems) -> Option<Self> {
        if self.used > self.count {
            return problems.add(format!("config.json: {} of {} experts can't be used", self.used, self.count));
        }
        Some(self)
    }
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norms {
    /// Before attention and before the MLP.
    Before,
    /// Behind both, before what they give is added.
    After,
    /// Before and behind both.
    Around,
    /// Before both, which read the same state: what they give is added together.
    Parallel,
}

/// How queries and keys are normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryKeyNorm {
    /// Not.
    None,
    /// Each head alone.
    PerHead,
    /// All heads together.
    AcrossHeads,
}

/// The norms of a trunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    /// What keeps the root from 0.
    pub(crate) epsilon: f64,
    /// Whether a weight w stands for 1 + w.
    pub(crate) one_is_zero: bool,
    /// What is divided by what.
    pub(crate) kind: NormKind,
}

/// The arithmetic of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// By the root of the mean square (Zhang and Sennrich 2019).
    RootMeanSquare,
    /// By the deviation, the distance from the mean (Ba et al. 2016).
    Layer {
        /// Whether a bias is added.
        bias: bool,
    },
}

/// The MLP's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The exact Gaussian error linear unit.
    Gelu,
    /// Its tanh form.
    GeluTanh,
    /// The square of a rectifier.
    ReluSquared,
}

/// What a family's configuration says in other words than Llama's.
pub(super) struct Wording {
    /// The activation, where it isn't to be read from `hidden_act`.
    pub(super) activation: Option<Activation>,
    /// The key of what keeps norms from 0, and the number where it is missing.
    pub(super) epsilon: (&'static str, f64),
    /// The key of what positions' slowest turn is made of, θ.
    pub(super) theta: &'static str,
    /// The share of a head's dimensions that is turned where the configuration doesn't say; `None` where it is always
    /// all of them.
    pub(super) turned: Option<f64>,
    /// The rotations, where they aren't one for all layers: `None` within where what they say can't be understood.
    pub(super) ropes: Option<Option<Vec<Rope>>>,
}

impl Wording {
    /// Llama's own.
    pub(super) const LLAMA: Self =
        Self { activation: None, epsilon: ("rms_norm_eps", 1e-6), theta: "rope_theta", turned: None, ropes: None };
}

impl Decoder {
    /// Where a part's weights are, the dimensions of queries and keys in such an order that all of a head can be turned,
    /// half against half, by [`Self::rotation`].
    pub(crate) fn piece(&self, layer: usize, part: Part) -> Piece {
        let piece = (self.names)(self, layer, part);
        let heads = match part {
            Part::QueryNorm | Part::KeyNorm if self.query_key_norm == QueryKeyNorm::PerHead => 1,
            Part::Queries | Part::QueryNorm => self.heads,
            Part::Keys | Part::KeyNorm => self.kv_heads,
            _ => return piece,
        };
        self.rotary.ordered(piece, heads, self.head_dim)
    }

    /// How a rotation turns each pair of dimensions, `head_dim` / 2 of them: radians a position, and what cosine and sine
    /// are multiplied by. Pairs that aren't turned have 0 and 1.
    pub(crate) fn rotation(&self, rope: &Rope) -> (Vec<f32>, Vec<f32>) {
        let mut frequencies = rope.inverse_frequencies(self.rotary.turned);
        #[expect(clippy::cast_possible_truncation, reason = "the graph computes in 32 bits")]
        let mut factors = vec![rope.temperature() as f32; frequencies.len()];
        frequencies.resize(self.head_dim / 2, 0.0);
        factors.resize(self.head_dim / 2, 1.0);
        (frequencies, factors)
    }

    /// How many query heads share a head of keys and values.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The plain form: Llama's, with what every family's configuration says.
    ///
    /// Families read their own keys before they ask for this: a key that nobody came to read is told as unknown.
    pub(super) fn plain(config: &Config, problems: &mut Problems) -> Option<Self> {
        Self::worded(config, Wording::LLAMA, problems)
    }

    /// The plain form, said in other words.
    pub(super) fn worded(config: &Config, wording: Wording, problems: &mut Problems) -> Option<Self> {
        let hidden = config.count("hidden_size", problems);
        let heads = config.count("num_attention_heads", problems);
        let layers = config.layers("num_hidden_layers", problems);
        let intermediate = config.count("intermediate_size", problems);
        let vocabulary = config.count("vocab_size", problems);
        let context = config.count("max_position_embeddings", problems);
        let kv_heads = config.count_or("num_key_value_heads", heads.unwrap_or(1), problems);
        let head_dim = config.count_or("head_dim", hidden.unwrap_or(0) / heads.unwrap_or(1), problems);
        let epsilon = config.positive_or(wording.epsilon.0, wording.epsilon.1, problems);
        let activation = match wording.activation {
            Some(activation) => Some(activation),
            None => activation(config, &["hidden_act"], problems),
        };
        let rotary = Rotary::read(config, head_dim.unwrap_or(0), wording.turned, problems);
        let ropes = match wording.ropes {
            Some(ropes) => ropes,
            None => Rope::read(config, wording.theta, context.unwrap_or(0), problems).map(|rope| vec![rope]),
        };
        let tied_embeddings = config.is_on("tie_word_embeddings");
        // Families with windows read them; those without have one kind of layer whatever is written.
        config.know(&["layer_types"]);
        let (heads, kv_heads, head_dim, layers) = (heads?, kv_heads?, head_dim?, layers?);
        if heads % kv_heads != 0 {
            return problems
                .add(format!("config.json: {heads} attention heads are no multiple of {kv_heads} key-value heads"));
        }
        if head_dim % 2 != 0 {
            return problems.add(format!("config.json: heads of {head_dim} dimensions can't be rotated in pairs"));
        }
        let (ropes, rotary) = (ropes?, rotary?);
        if let Some(odd) = ropes
            .iter()
            .map(|rope| rope.inverse_frequencies(rotary.turned).len())
            .find(|pairs| 2 * pairs != rotary.turned)
        {
            return problems.add(format!(
                "config.json: longrope has {odd} factors for {} dimensions, half as many are wanted",
                rotary.turned
            ));
        }
        let context = ropes.iter().filter_map(Rope::exact_up_to).fold(context?, usize::min);
        Some(Self {
            hidden: hidden?,
            layers,
            heads,
            kv_heads,
            head_dim,
            intermediate: intermediate?,
            vocabulary: vocabulary?,
            context,
            ropes,
            rotary,
            sights: vec![Sight { window: None, rope: Some(0) }; layers],
            norm: Norm { epsilon: epsilon?, one_is_zero: false, kind: NormKind::RootMeanSquare },
            norms: Norms::Before,
            query_key_norm: QueryKeyNorm::None,
            activation: activation?,
            gated: true,
            experts: None,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            query_scale: (head_dim as f64).powf(-0.5),
            attention_cap: None,
            logit_cap: None,
            logit_scale: None,
            embedding_scale: None,
            residual_scale: None,
            tied_embeddings,
            names: names::plain,
        })
    }

    /// The same where no layer sees further back than `window`.
    pub(super) fn within_everywhere(mut self, window: Option<usize>) -> Self {
        self.sights.iter_mut().for_each(|sight| sight.window = window);
        self
    }

    /// The same where layers of type `sliding_attention` see no further back than `window`. `is_sliding` says which those
    /// are where the configuration has no `layer_types`. Where a trunk has two rotations, the second is theirs.
    pub(super) fn within(
        mut self,
        window: Option<usize>,
        config: &Config,
        problems: &mut Problems,
        is_sliding: impl Fn(usize) -> bool,
    ) -> Option<Self> {
        let sliding: Vec<bool> = match config.get("layer_types") {
            None => (0..self.layers).map(is_sliding).collect(),
            Some(types) => sliding(types, self.layers, problems)?,
        };
        let rotations = self.ropes.len();
        for (sight, sliding) in self.sights.iter_mut().zip(sliding) {
            sight.window = window.filter(|_| sliding);
            sight.rope = sight.rope.map(|rope| if sliding { rotations - 1 } else { rope });
        }
        Some(self)
    }
}

/// Which layers have a window, by their types.
fn sliding(types: &Value, layers: usize, problems: &mut Problems) -> Option<Vec<bool>> {
    let types: Vec<&str> = types.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(odd) = types.iter().find(|kind| !["full_attention", "sliding_attention"].contains(kind)) {
        return problems.add(format!("config.json: layers of type {odd:?} are not known"));
    }
    if types.len() != layers {
        return problems.add(format!("config.json: layer_types has {} entries for {layers} layers", types.len()));
    }
    Some(types.iter().map(|kind| *kind == "sliding_attention").collect())
}

/// The activation that the first of `keys` names; SiLU where none is there.
pub(super) fn activation(config: &Config, keys: &[&str], problems: &mut Problems) -> Option<Activation> {
    let named = keys.iter().find_map(|key| config.text(key));
    config.know(keys);
    match named {
        None | Some("silu" | "swish") => Some(Activation::Silu),
        Some("gelu") => Some(Activation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Some(Activation::GeluTanh),
        Some("relu2") => Some(Activation::ReluSquared),
        Some(other) => problems.add(format!(
            "config.json: the activation {other:?} is not known; known are silu, gelu, gelu_pytorch_tanh and relu2"
        )),
    }
}
