//! Holds a manifest against the graph that it names.

use karat_rules::{
    domain::{Dimension, ElementType, GraphSignature, TensorSpec},
    head::DecoderOutput,
};
use karat_runtime::{GraphBinding, PixelBinding, PixelLayout, Scale, TextNeeds};

use super::{GraphDefinition, ManifestError};

/// Finds the graph's inputs and outputs by the manifest's names and checks their types and shapes.
///
/// # Errors
/// When an input that the manifest names is missing, the graph has an input that karat can't fill, a type or shape
/// doesn't fit, or the head can't read the outputs.
pub(crate) fn bind_graph(
    definition: &GraphDefinition,
    signature: &GraphSignature,
    pad_id: u32,
) -> Result<GraphBinding, ManifestError> {
    let binder = Binder { definition, signature };
    let embeds = definition.head.probing().is_some_and(|probing| probing.reads() == DecoderOutput::Embeddings);
    if let Some(probing) = definition.head.probing().filter(|_| !embeds) {
        return Err(binder.refuse(
            "head",
            format!("the {} head reads a language model, and this graph is none that shares prefixes", probing.name()),
            "name a decoder's checkpoint folder in its place (checkpoint in [graph]), or choose another head",
        ));
    }
    if definition.text.as_ref().is_some_and(|text| text.gate_mark.is_some()) {
        return Err(binder.refuse(
            "text.gate_mark",
            "the graph reads all its outputs itself, and not at tokens that karat finds".to_owned(),
            "remove the key, or export the model as a decoder graph",
        ));
    }
    let names = &definition.inputs;
    let input_ids = binder.input("input_ids", names.input_ids.as_deref())?;
    let input_ids = input_ids.ok_or_else(|| {
        binder.refuse(
            "graph.inputs.input_ids",
            format!("the graph has no input \"input_ids\", only {}", list(&signature.inputs)),
            "name the input that takes the token ids",
        )
    })?;
    let attention_mask = binder.input("attention_mask", names.attention_mask.as_deref())?;
    let token_type_ids = binder.input("token_type_ids", names.token_type_ids.as_deref())?;
    let position_ids = binder.input("position_ids", names.position_ids.as_deref())?;

    let used = [Some(&input_ids), attention_mask.as_ref(), token_type_ids.as_ref(), position_ids.as_ref()];
    if let Some(unknown) = signature.inputs.iter().find(|input| !used.contains(&Some(&input.name))) {
        return Err(binder.refuse(
            "graph.inputs",
            format!("the graph wants an input {unknown} that karat doesn't know"),
            "name it under graph.inputs if it is one of input_ids, attention_mask, token_type_ids and position_ids, or \
             export the graph without it",
        ));
    }

    let outputs = if embeds { binder.embedding("text_embeds")? } else { binder.read_by_head()? };
    Ok(GraphBinding { input_ids, attention_mask, token_type_ids, position_ids, outputs, pad_id })
}

/// Finds the input that takes the pixels and the outputs that the head reads, in a graph that takes images of `size` rows
/// and columns.
///
/// # Errors
/// When the graph takes something else as well, or images of another size, or the head can't read its outputs.
pub(crate) fn bind_pixels(
    definition: &GraphDefinition,
    signature: &GraphSignature,
    size: [usize; 2],
    scale: Scale,
) -> Result<PixelBinding, ManifestError> {
    let binder = Binder { definition, signature };
    let named = definition.inputs.pixel_values.as_deref();
    let input = match (named, signature.inputs.as_slice()) {
        (None, [only]) => only,
        (named, inputs) => {
            let name = named.unwrap_or("pixel_values");
            inputs.iter().find(|input| input.name == name).filter(|_| inputs.len() == 1).ok_or_else(|| {
                binder.refuse(
                    "graph.inputs.pixel_values",
                    format!("a graph of images takes {name:?} alone, and this one takes {}", list(inputs)),
                    "export the part that sees by itself, with the pixels as its only input",
                )
            })?
        }
    };
    let last = matches!(input.shape.as_slice(), [_, _, _, Dimension::Fixed(3)]);
    let layout = match input.shape.as_slice() {
        [_, Dimension::Fixed(3), ..] => PixelLayout::ChannelsFirst,
        _ if last => PixelLayout::ChannelsLast,
        _ => PixelLayout::ChannelsFirst,
    };
    let sides = match (layout, input.shape.as_slice()) {
        (PixelLayout::ChannelsFirst, [_, _, height, width]) | (PixelLayout::ChannelsLast, [_, height, width, _]) => {
            [height, width]
        }
        _ => {
            return Err(binder.refuse(
                "graph.inputs.pixel_values",
                format!("input {input} has {} axes", input.shape.len()),
                "export the graph for images, [batch, 3, height, width] or [batch, height, width, 3]; video is not taken",
            ));
        }
    };
    for (side, size) in sides.into_iter().zip(size) {
        if let Dimension::Fixed(fixed) = side
            && *fixed != size
        {
            return Err(binder.refuse(
                "image.preprocessor",
                format!("it makes a side of {size} pixels, and input {input} has {fixed}"),
                "mend size or crop_size in it, or export the graph for that size",
            ));
        }
    }
    let embeds = definition.head.probing().is_some_and(|probing| probing.reads() == DecoderOutput::Embeddings);
    let outputs = if embeds { binder.embedding("image_embeds")? } else { binder.read_by_head()? };
    Ok(PixelBinding { pixel_values: input.name.clone(), layout, size, scale, outputs })
}

/// Finds the outputs that the head reads among those that a decoder graph gives at each token, of shape
/// `[positions, width]`, and checks the model's longest sample against the graph's context.
///
/// # Errors
/// When an output is missing or doesn't fit the head, names are given to inputs that the contract fixes, or samples may
/// be longer than the graph takes, or lack what it needs.
pub(crate) fn bind_decoder(
    definition: &GraphDefinition,
    outputs: &[TensorSpec],
    context: usize,
    needs: &TextNeeds,
) -> Result<Vec<String>, ManifestError> {
    let signature = GraphSignature { inputs: Vec::new(), outputs: outputs.to_vec() };
    let binder = Binder { definition, signature: &signature };
    binder.check_needs(needs)?;
    let max_tokens = definition.longest().get();
    if max_tokens > context {
        return Err(binder.refuse(
            "text.max_tokens",
            format!("samples may have {max_tokens} tokens, and the graph's context is {context}"),
            &format!("write max_tokens = {context} or less"),
        ));
    }
    if let Some(probing) = definition.head.probing() {
        let usual = [probing.reads().name().to_owned()];
        let names = definition.outputs.as_deref().unwrap_or(&usual);
        let [name] = names else {
            return Err(binder.refuse(
                "graph.output",
                format!("{} outputs are named, and the {} head reads one", names.len(), probing.name()),
                "name one, or remove the key",
            ));
        };
        return binder.named(name).map(|output| vec![output.name.clone()]);
    }
    let outputs = match (&definition.outputs, outputs.iter().find(|output| output.name == "scores")) {
        (None, Some(scores)) => vec![scores],
        _ => binder.outputs()?,
    };
    // A head that reads tokens gets a line for each that it reads.
    let shape = definition.head.shape();
    let read: Vec<TensorSpec> = outputs
        .iter()
        .map(|output| {
            let mut output = (*output).clone();
            if shape.steps || shape.tokens {
                output.shape.insert(0, Dimension::Dynamic("batch".to_owned()));
            }
            output
        })
        .collect();
    definition
        .head
        .check(&read.iter().collect::<Vec<_>>())
        .map_err(|error| binder.refuse("head", error.to_string(), "see the heads in the manifest reference"))?;
    Ok(read.into_iter().map(|output| output.name).collect())
}

struct Binder<'a> {
    definition: &'a GraphDefinition,
    signature: &'a GraphSignature,
}

impl Binder<'_> {
    /// Refuses texts without which the graph's numbers would look right and mean nothing.
    fn check_needs(&self, needs: &TextNeeds) -> Result<(), ManifestError> {
        // No model that sees is a decoder.
        let Some(text) = &self.definition.text else { return Ok(()) };
        if self.definition.head.reads_gate() && needs.gate_mark && text.gate_mark.is_none() {
            return Err(self.refuse(
                "text.gate_mark",
                "it is missing, and this model reads its weights at a mark in the text".to_owned(),
                "write the text at whose first token they are read, such as what stands before the last answer",
            ));
        }
        match &needs.last_token {
            Some(token) if self.definition.head.probing().is_none() && text.last_token.as_ref() != Some(token) => {
                Err(self.refuse(
                    "text.last_token",
                    format!("it is {:?}, and this model reads its score at {token:?}", text.last_token),
                    &format!("write last_token = {token:?}"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// The input for `role`, under the manifest's name or its usual one; `None` when the graph has no use for it.
    fn input(&self, role: &str, named: Option<&str>) -> Result<Option<String>, ManifestError> {
        let key = format!("graph.inputs.{role}");
        let Some(spec) = self.signature.inputs.iter().find(|input| input.name == named.unwrap_or(role)) else {
            return match named {
                None => Ok(None),
                Some(name) => Err(self.refuse(
                    &key,
                    format!("the graph has no input {name:?}"),
                    &format!("write one of {}", list(&self.signature.inputs)),
                )),
            };
        };
        if !matches!(spec.element, ElementType::Int64 | ElementType::Int32) {
            return Err(self.refuse(&key, format!("input {spec} holds {}", spec.element), "export it as int64"));
        }
        match spec.shape.as_slice() {
            [Dimension::Dynamic(_), Dimension::Dynamic(_)] => Ok(Some(spec.name.clone())),
            _ => Err(self.refuse(
                &key,
                format!("input {spec} has a fixed shape"),
                "export the graph with both axes dynamic, [batch, sequence]",
            )),
        }
    }

    /// The names of the outputs that the head reads, held against it.
    fn read_by_head(&self) -> Result<Vec<String>, ManifestError> {
        let outputs = self.outputs()?;
        self.definition
            .head
            .check(&outputs)
            .map_err(|error| self.refuse("head", error.to_string(), "see the heads in the manifest reference"))?;
        Ok(outputs.iter().map(|output| output.name.clone()).collect())
    }

    /// The output that holds one vector for each input: the one that the manifest names, or of the usual name, or the only
    /// one.
    fn embedding(&self, usual: &str) -> Result<Vec<String>, ManifestError> {
        let output = match (self.definition.outputs.as_deref(), self.signature.outputs.as_slice()) {
            (Some([name]), _) => self.named(name)?,
            (None, [only]) => only,
            (None, _) => self.named(usual)?,
            (Some(names), _) => {
                return Err(self.refuse(
                    "graph.output",
                    format!("{} outputs are named, and one is compared", names.len()),
                    "name one, or remove the key",
                ));
            }
        };
        if output.shape.len() != 2 {
            return Err(self.refuse(
                "graph.output",
                format!("output {output} holds more than a vector for each input"),
                "name an output [batch, width], such as text_embeds and image_embeds",
            ));
        }
        Ok(vec![output.name.clone()])
    }

    /// The outputs that the manifest names, or the only one, or the one named `logits`.
    fn outputs(&self) -> Result<Vec<&TensorSpec>, ManifestError> {
        match (&self.definition.outputs, self.signature.outputs.as_slice()) {
            (Some(names), _) => names.iter().map(|name| self.named(name)).collect(),
            (None, [only]) => Ok(vec![only]),
            (None, _) => Ok(vec![self.named("logits")?]),
        }
    }

    fn named(&self, name: &str) -> Result<&TensorSpec, ManifestError> {
        let outputs = &self.signature.outputs;
        outputs.iter().find(|output| output.name == name).ok_or_else(|| {
            self.refuse(
                "graph.output",
                format!("the graph has no output {name:?}"),
                &format!("write one of {}", list(outputs)),
            )
        })
    }

    fn refuse(&self, key: &str, found: String, wanted: &str) -> ManifestError {
        ManifestError::Key {
            path: self.definition.manifest.clone(),
            key: key.to_owned(),
            found,
            wanted: wanted.to_owned(),
        }
    }
}

fn list(specs: &[TensorSpec]) -> String {
    let specs: Vec<String> = specs.iter().map(|spec| format!("\"{}\"", spec.name)).collect();
    specs.join(", ")
}
