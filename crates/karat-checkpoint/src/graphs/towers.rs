//! Models that see, as graphs of texts and of images by themselves.
//!
//! | graph | input | shape | output | shape |
//! |---|---|---|---|---|
//! | of texts | `input_ids`, `attention_mask` int64 | `[batch, sequence]` | `text_embeds` | `[batch, width]` |
//! | of images | `pixel_values` float32 | `[batch, 3, height, width]` | `image_embeds` or `logits` | `[batch, width]` |
//!
//! States are `[batch · sequence, hidden]` between the layers of a tower. Embeddings aren't normed: a cosine is what is
//! made of them, or a head reads them, which norms them itself. What is read of a tower is projected in 32 bits, whatever the
//! tower computes in.

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Element, Graph,
    nodes::{Attribute, Nodes, finish, signed},
    padded::piece,
};
use crate::{
    problems::Problems,
    trunks::{
        image::{ImageModel, ImageTrunk},
        towers::{ImageKind, ImageTower, TextRead, TextTower, Tower},
    },
    weights::Weights,
};

/// Writes the graph of texts with a tower in that format; what doesn't fit goes into `problems`.
pub(crate) fn texts(text: &TextTower, element: Element, weights: &Weights, problems: &mut Problems) -> Graph {
    let mut nodes = Nodes::new(weights, problems);
    nodes.compute_in(element);
    let hidden = text.tower.hidden;
    let (ids, length) = match text.read {
        TextRead::LastOfFilled(padding) => fill(&mut nodes, text.positions, padding),
        TextRead::FirstOf(_) | TextRead::Highest => {
            let shape = nodes.add("Shape", &["input_ids"]);
            let one = nodes.integer("step", 1);
            ("input_ids".to_owned(), nodes.add("Gather", &[&shape, &one]))
        }
    };
    let shape = nodes.add("Shape", &[&ids]);
    let heads = nodes.shape(&[signed(text.tower.heads), signed(hidden / text.tower.heads)]);
    let sizes = nodes.add_with("Concat", &[&shape, &heads], &[("axis", Attribute::Int(0))]);
    let tokens = nodes.table(&piece("text_model.embeddings.token_embedding"), [text.vocabulary, hidden]);
    let tokens = nodes.add("Gather", &[&tokens, &ids]);
    let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
    let places = nodes.add("Range", &[&zero, &length, &one]);
    let positions = nodes.table(&piece("text_model.embeddings.position_embedding"), [text.positions, hidden]);
    let positions = nodes.add("Gather", &[&positions, &places]);
    let state = nodes.add("Add", &[&tokens, &positions]);
    let flat = nodes.shape(&[-1, signed(hidden)]);
    let state = nodes.add("Reshape", &[&state, &flat]);
    let unseen = match text.read {
        TextRead::LastOfFilled(_) => None,
        TextRead::FirstOf(_) | TextRead::Highest => Some(looking_back(&mut nodes, &places)),
    };
    let state = Layers { tower: &text.tower, nodes: &mut nodes, sizes, unseen }.all(state);
    let width = nodes.integers("hidden", &[signed(hidden)]);
    let by_text = nodes.add_with("Concat", &[&shape, &width], &[("axis", Attribute::Int(0))]);
    let state = nodes.add("Reshape", &[&state, &by_text]);
    let place = place(&mut nodes, text.read, &ids);
    let read = nodes.add_with("GatherND", &[&state, &place], &[("batch_dims", Attribute::Int(1))]);
    let read = nodes.widened(&read);
    let read = nodes.layer_norm(&piece("text_model.final_layer_norm"), &read, hidden, text.tower.epsilon, true);
    let (projection, bias) = match text.read {
        TextRead::LastOfFilled(_) => ("text_model.head", true),
        TextRead::FirstOf(_) | TextRead::Highest => ("text_projection", false),
    };
    nodes.linear_into("text_embeds", &piece(projection), &read, [text.width, hidden], bias);
    let rows = ["batch", "sequence"];
    let inputs = ["input_ids", "attention_mask"].map(|name| ValueInfoProto::tensor(name, DataType::Int64, &rows));
    let output = ValueInfoProto::tensor("text_embeds", DataType::Float, &["batch", &text.width.to_string()]);
    finish(nodes, inputs.to_vec(), vec![output], &[])
}

/// The ids, filled to all positions, and how many those are. What pads rows of a batch is filled as well.
fn fill(nodes: &mut Nodes<'_>, positions: usize, padding: u32) -> (String, String) {
    let padding = nodes.integer("padding", i64::from(padding));
    let one = nodes.integer("step", 1);
    let is_text = nodes.add("Equal", &["attention_mask", &one]);
    let ids = nodes.add("Where", &[&is_text, "input_ids", &padding]);
    let shape = nodes.add("Shape", &[&ids]);
    let ones = nodes.integers("second", &[1]);
    let length = nodes.add("Gather", &[&shape, &ones]);
    let all = nodes.integers("positions", &[signed(positions)]);
    let lacking = nodes.add("Sub", &[&all, &length]);
    let before = nodes.integers("none_before", &[0, 0, 0]);
    let around = nodes.add_with("Concat", &[&before, &lacking], &[("axis", Attribute::Int(0))]);
    let filled = nodes.add("Pad", &[&ids, &around, &padding]);
    let length = nodes.integer("position_count", signed(positions));
    (filled, length)
}

/// `[sequence, sequence]`: 0 where a token sees another, and a large negative number where that comes later.
fn looking_back(nodes: &mut Nodes<'_>, places: &str) -> String {
    let (row, column) = (nodes.shape(&[1, -1]), nodes.shape(&[-1, 1]));
    let of_keys = nodes.add("Reshape", &[places, &row]);
    let of_queries = nodes.add("Reshape", &[places, &column]);
    let later = nodes.add("Greater", &[&of_keys, &of_queries]);
    let (unseen, seen) = (nodes.unseen(), nodes.number("seen", 0.0));
    nodes.add("Where", &[&later, &unseen, &seen])
}

/// `[batch, 1]`: the place in each text at which its state is read.
fn place(nodes: &mut Nodes<'_>, read: TextRead, ids: &str) -> String {
    let to_integer = [("to", Attribute::Int(DataType::Int64 as i64))];
    let highest = [("axis", Attribute::Int(1)), ("keepdims", Attribute::Int(1))];
    match read {
        TextRead::FirstOf(end) => {
            let end = nodes.integer("end", i64::from(end));
            let is_end = nodes.add("Equal", &[ids, &end]);
            let is_end = nodes.add_with("Cast", &[&is_end], &to_integer);
            let is_end = nodes.add("Mul", &[&is_end, "attention_mask"]);
            nodes.add_with("ArgMax", &[&is_end], &highest)
        }
        TextRead::Highest => {
            let ids = nodes.add("Mul", &[ids, "attention_mask"]);
            nodes.add_with("ArgMax", &[&ids], &highest)
        }
        TextRead::LastOfFilled(_) => {
            let shape = nodes.add("Shape", &[ids]);
            let first = nodes.integers("first", &[0]);
            let batch = nodes.add("Gather", &[&shape, &first]);
            let one = nodes.integers("second", &[1]);
            let column = nodes.add_with("Concat", &[&batch, &one], &[("axis", Attribute::Int(0))]);
            let last = nodes.add("Gather", &[&shape, &one]);
            let last = nodes.add("Sub", &[&last, &one]);
            nodes.add("Expand", &[&last, &column])
        }
    }
}

/// Writes the graph of images with a trunk in that format; what doesn't fit goes into `problems`.
pub(crate) fn images(model: &ImageModel, element: Element, weights: &Weights, problems: &mut Problems) -> Graph {
    let mut nodes = Nodes::new(weights, problems);
    let pixels = nodes.cast("pixel_values", element);
    nodes.compute_in(element);
    let (state, width, sides) = match &model.image {
        ImageTrunk::Tower(tower) => {
            let (state, width) = self::tower(&mut nodes, tower, &pixels);
            (state, width, tower.size.map(|side| side.to_string()))
        }
        ImageTrunk::ConvNext(convnext) => {
            let state = super::convnext::pooled(&mut nodes, convnext, &pixels);
            (state, convnext.width(), ["height", "width"].map(str::to_owned))
        }
    };
    let (output, numbers) = match (&model.head, model.image.labels()) {
        (Some(head), _) => {
            head.build(&mut nodes, &state, width, "logits");
            ("logits", head.rows())
        }
        (None, Some(labels)) => {
            nodes.linear_into("logits", &piece("classifier"), &state, [labels, width], true);
            ("logits", labels)
        }
        (None, None) => {
            nodes.add_into("image_embeds", "Identity", &[&state]);
            ("image_embeds", width)
        }
    };
    let [height, across] = sides;
    let input = ValueInfoProto::tensor("pixel_values", DataType::Float, &["batch", "3", &height, &across]);
    let output = ValueInfoProto::tensor(output, DataType::Float, &["batch", &numbers.to_string()]);
    finish(nodes, vec![input], vec![output], &[])
}

/// Adds a tower over `pixels`, and gives the state that is read of an image, `[batch, width]` in 32 bits, and its width.
fn tower(nodes: &mut Nodes<'_>, image: &ImageTower, pixels: &str) -> (String, usize) {
    let (hidden, patch, patches) = (image.tower.hidden, image.patch, image.patches());
    let (cut, bias) = match image.kind {
        ImageKind::Clip(_) => ("vision_model.embeddings.patch_embedding", false),
        ImageKind::Siglip => ("vision_model.embeddings.patch_embedding", true),
        ImageKind::Classifier(_) => ("vit.embeddings.patch_embeddings.projection", true),
    };
    let state = nodes.squares(cut, pixels, [hidden, 3], patch, bias);
    let columns = nodes.shape(&[0, signed(hidden), -1]);
    let state = nodes.add("Reshape", &[&state, &columns]);
    let state = nodes.add_with("Transpose", &[&state], &[("perm", Attribute::Ints(&[0, 2, 1]))]);
    let (state, places) = match image.kind {
        ImageKind::Siglip => (state, patches),
        ImageKind::Clip(_) | ImageKind::Classifier(_) => {
            let (name, shape): (_, &[usize]) = match image.kind {
                ImageKind::Classifier(_) => ("vit.embeddings.cls_token", &[1, 1, hidden]),
                _ => ("vision_model.embeddings.class_embedding", &[hidden]),
            };
            let own = nodes.tensor(name, shape);
            (before(nodes, &own, &state, hidden), patches + 1)
        }
    };
    let positions = match image.kind {
        ImageKind::Classifier(_) => nodes.tensor("vit.embeddings.position_embeddings", &[1, places, hidden]),
        _ => nodes.table(&piece("vision_model.embeddings.position_embedding"), [places, hidden]),
    };
    let state = nodes.add("Add", &[&state, &positions]);
    let flat = nodes.shape(&[-1, signed(hidden)]);
    let mut state = nodes.add("Reshape", &[&state, &flat]);
    let epsilon = image.tower.epsilon;
    if let ImageKind::Clip(_) = image.kind {
        // The name is the authors'.
        state = nodes.layer_norm(&piece("vision_model.pre_layrnorm"), &state, hidden, epsilon, true);
    }
    let sizes = nodes.shape(&[-1, signed(places), signed(image.tower.heads), signed(hidden / image.tower.heads)]);
    let mut layers = Layers { tower: &image.tower, nodes: &mut *nodes, sizes, unseen: None };
    match image.kind {
        ImageKind::Clip(width) => {
            let own = layers.first(state, places);
            let own = nodes.widened(&own);
            let own = nodes.layer_norm(&piece("vision_model.post_layernorm"), &own, hidden, epsilon, true);
            (nodes.linear(&piece("visual_projection"), &own, [width, hidden], false), width)
        }
        ImageKind::Classifier(_) => {
            let own = layers.first(state, places);
            let own = nodes.widened(&own);
            (nodes.layer_norm(&piece("vit.layernorm"), &own, hidden, epsilon, true), hidden)
        }
        ImageKind::Siglip => {
            let state = layers.all(state);
            let state = nodes.layer_norm(&piece("vision_model.post_layernorm"), &state, hidden, epsilon, true);
            let drawn = draw(nodes, image, &state);
            (nodes.widened(&drawn), hidden)
        }
    }
}

/// `own` before the patches of every image.
fn before(nodes: &mut Nodes<'_>, own: &str, state: &str, hidden: usize) -> String {
    let shape = nodes.add("Shape", &[state]);
    let zero = nodes.integers("first", &[0]);
    let batch = nodes.add("Gather", &[&shape, &zero]);
    let one_each = nodes.integers("one_each", &[1, signed(hidden)]);
    let all = nodes.add_with("Concat", &[&batch, &one_each], &[("axis", Attribute::Int(0))]);
    let own = nodes.add("Expand", &[own, &all]);
    nodes.add_with("Concat", &[&own, state], &[("axis", Attribute::Int(1))])
}

/// The state at the first of `places`, `[batch, hidden]`.
fn first(nodes: &mut Nodes<'_>, state: &str, places: usize, hidden: usize) -> String {
    let by_image = nodes.shape(&[-1, signed(places), signed(hidden)]);
    let state = nodes.add("Reshape", &[state, &by_image]);
    let zero = nodes.integer("zero", 0);
    nodes.add_with("Gather", &[&state, &zero], &[("axis", Attribute::Int(1))])
}

/// What one learned query draws of an image's patches, and the MLP after it.
fn draw(nodes: &mut Nodes<'_>, image: &ImageTower, state: &str) -> String {
    let Tower { hidden, heads, intermediate, epsilon, activation, .. } = image.tower;
    let (head, dim) = ("vision_model.head", hidden / heads);
    let probe = nodes.tensor(&format!("{head}.probe"), &[1, 1, hidden]);
    let flat = nodes.shape(&[-1, signed(hidden)]);
    let probe = nodes.add("Reshape", &[&probe, &flat]);
    let project = |nodes: &mut Nodes<'_>, value: &str, part: usize| {
        let rows = part * hidden..(part + 1) * hidden;
        let weight = format!("{head}.attention.in_proj_weight");
        let weight = nodes.weight(&weight, std::slice::from_ref(&rows), &[hidden, hidden], false);
        let bias = nodes.weight(&format!("{head}.attention.in_proj_bias"), &[rows], &[hidden], false);
        nodes.add_with("Gemm", &[value, &weight, &bias], &[("transB", Attribute::Int(1))])
    };
    let by_head = |nodes: &mut Nodes<'_>, value: &str, places: usize, order: &[i64]| {
        let sizes = nodes.shape(&[-1, signed(places), signed(heads), signed(dim)]);
        let value = nodes.add("Reshape", &[value, &sizes]);
        nodes.add_with("Transpose", &[&value], &[("perm", Attribute::Ints(order))])
    };
    let query = project(nodes, &probe, 0);
    let query = by_head(nodes, &query, 1, &[0, 2, 1, 3]);
    let key = project(nodes, state, 1);
    let key = by_head(nodes, &key, image.patches(), &[0, 2, 3, 1]);
    let value = project(nodes, state, 2);
    let value = by_head(nodes, &value, image.patches(), &[0, 2, 1, 3]);
    let drawn = attend(nodes, [&query, &key, &value], dim, None);
    let drawn = nodes.add("Reshape", &[&drawn, &flat]);
    let drawn = nodes.linear(&piece(&format!("{head}.attention.out_proj")), &drawn, [hidden, hidden], true);
    let normed = nodes.layer_norm(&piece(&format!("{head}.layernorm")), &drawn, hidden, epsilon, true);
    let inner = nodes.linear(&piece(&format!("{head}.mlp.fc1")), &normed, [intermediate, hidden], true);
    let inner = nodes.gate(activation, &inner);
    let outer = nodes.linear(&piece(&format!("{head}.mlp.fc2")), &inner, [hidden, intermediate], true);
    nodes.add("Add", &[&drawn, &outer])
}

/// What queries `[batch, heads, places, dim]` draw of values by keys `[batch, heads, dim, places]`: `[batch, places, heads,
/// dim]` (Vaswani et al. 2017).
fn attend(nodes: &mut Nodes<'_>, [query, key, value]: [&str; 3], dim: usize, unseen: Option<&str>) -> String {
    // Before they are multiplied, as half precision doesn't hold every product.
    let scale = nodes.number("query_scale", (dim as f64).powf(-0.5));
    let query = nodes.add("Mul", &[query, &scale]);
    let mut likeness = nodes.add("MatMul", &[&query, key]);
    if let Some(unseen) = unseen {
        likeness = nodes.add("Add", &[&likeness, unseen]);
    }
    let share = nodes.add_with("Softmax", &[&likeness], &[("axis", Attribute::Int(-1))]);
    let drawn = nodes.add("MatMul", &[&share, value]);
    nodes.add_with("Transpose", &[&drawn], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))])
}

struct Layers<'a, 'w> {
    tower: &'a Tower,
    nodes: &'a mut Nodes<'w>,
    /// The shape `[batch, sequence, heads, head_dim]`.
    sizes: String,
    /// What is added where a token doesn't see another, if there are such places.
    unseen: Option<String>,
}

/// The places of a layer whose states are wanted.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    All,
    /// The first of so many.
    First(usize),
}

impl Layers<'_, '_> {
    fn all(&mut self, state: String) -> String {
        (0..self.tower.layers).fold(state, |state, layer| self.layer(layer, &state, Wanted::All))
    }

    /// The state at the first of `places` after all layers, `[batch, hidden]`. The last layer computes no other: its keys and
    /// values are all that the other places are for.
    fn first(&mut self, state: String, places: usize) -> String {
        let Some(last) = self.tower.layers.checked_sub(1) else {
            return first(self.nodes, &state, places, self.tower.hidden);
        };
        let state = (0..last).fold(state, |state, layer| self.layer(layer, &state, Wanted::All));
        self.layer(last, &state, Wanted::First(places))
    }

    fn layer(&mut self, layer: usize, state: &str, wanted: Wanted) -> String {
        let Tower { hidden, intermediate, epsilon, activation, names, .. } = *self.tower;
        let name = |part: &str| piece(&format!("{}{layer}.{part}", names.layer));
        let normed = self.nodes.layer_norm(&name(names.before_attention), state, hidden, epsilon, true);
        let drawn = self.attention(layer, &normed, wanted);
        let state = match wanted {
            Wanted::All => state.to_owned(),
            Wanted::First(places) => first(self.nodes, state, places, hidden),
        };
        let state = self.nodes.add("Add", &[&state, &drawn]);
        let normed = self.nodes.layer_norm(&name(names.before_mlp), &state, hidden, epsilon, true);
        let inner = self.nodes.linear(&name(names.inner), &normed, [intermediate, hidden], true);
        let inner = self.nodes.gate(activation, &inner);
        let outer = self.nodes.linear(&name(names.outer), &inner, [hidden, intermediate], true);
        self.nodes.add("Add", &[&state, &outer])
    }

    /// What the wanted places draw of all.
    fn attention(&mut self, layer: usize, state: &str, wanted: Wanted) -> String {
        let Tower { hidden, heads, bias, names, .. } = *self.tower;
        let name = |part: &str| piece(&format!("{}{layer}.{part}", names.layer));
        let (asking, asked) = match wanted {
            Wanted::All => (state.to_owned(), self.sizes.clone()),
            Wanted::First(places) => (
                first(self.nodes, state, places, hidden),
                self.nodes.shape(&[-1, 1, signed(heads), signed(hidden / heads)]),
            ),
        };
        let sizes = self.sizes.clone();
        let by_head = |layers: &mut Self, part: &str, state: &str, sizes: &str, order: &[i64]| {
            let value = layers.nodes.linear(&name(part), state, [hidden, hidden], bias);
            let value = layers.nodes.add("Reshape", &[&value, sizes]);
            layers.nodes.add_with("Transpose", &[&value], &[("perm", Attribute::Ints(order))])
        };
        let query = by_head(self, names.query, &asking, &asked, &[0, 2, 1, 3]);
        let key = by_head(self, names.key, state, &sizes, &[0, 2, 3, 1]);
        let value = by_head(self, names.value, state, &sizes, &[0, 2, 1, 3]);
        let drawn = attend(self.nodes, [&query, &key, &value], hidden / heads, self.unseen.as_deref());
        let flat = self.nodes.shape(&[-1, signed(hidden)]);
        let drawn = self.nodes.add("Reshape", &[&drawn, &flat]);
        self.nodes.linear(&name(names.drawn), &drawn, [hidden, hidden], true)
    }
}
