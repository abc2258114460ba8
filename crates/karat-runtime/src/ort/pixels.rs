//! Runs a graph that takes images: each sample's pixels, scaled as the graph wants them.

use std::sync::Arc;

use ::ort::{
    session::{Session, SessionInputValue},
    value::TensorRef,
};
use karat_rules::domain::{Dimension, ElementType, GraphSignature, RowTensor};

use super::{
    executor::{Options, Output, bind_pixel_outputs},
    failure,
};
use crate::{Cancellation, Executor, PixelBinding, PixelLayout, RuntimeError, TokenBatch};

/// Runs one session; its buffer is kept from pass to pass.
pub(super) struct OrtPixels {
    session: Session,
    binding: PixelBinding,
    outputs: Vec<Output>,
    options: Arc<Options>,
    buffer: Vec<f32>,
}

impl OrtPixels {
    pub(super) fn new(
        session: Session,
        signature: &GraphSignature,
        binding: &PixelBinding,
    ) -> Result<Self, RuntimeError> {
        let refuse = |found: String, advice: &str| RuntimeError::Binding { found, advice: advice.to_owned() };
        let input = match signature.inputs.as_slice() {
            [input] if input.name == binding.pixel_values => input,
            _ => {
                return Err(refuse(
                    format!("the graph doesn't take {:?} alone", binding.pixel_values),
                    "export a graph whose only input is the pixels",
                ));
            }
        };
        if input.element != ElementType::Float32 {
            return Err(refuse(format!("input {input} takes {}", input.element), "export it as float32"));
        }
        let [height, width] = binding.size;
        let wanted = match binding.layout {
            PixelLayout::ChannelsFirst => [3, height, width],
            PixelLayout::ChannelsLast => [height, width, 3],
        };
        let fits = |(dimension, size): (&Dimension, &usize)| match dimension {
            Dimension::Fixed(fixed) => fixed == size,
            Dimension::Dynamic(_) => true,
        };
        let fits = match input.shape.as_slice() {
            [Dimension::Dynamic(_), rest @ ..] => rest.len() == 3 && rest.iter().zip(&wanted).all(fits),
            _ => false,
        };
        if !fits {
            return Err(refuse(
                format!("input {input} doesn't take batches of images of {height} x {width} pixels"),
                "export it with a dynamic batch axis, and prepare images in the size that it takes",
            ));
        }
        let options =
            Options::new(&binding.outputs, &[]).map_err(|error| RuntimeError::Pass { cause: error.into() })?;
        Ok(Self {
            session,
            outputs: bind_pixel_outputs(signature, &binding.outputs)?,
            binding: binding.clone(),
            options,
            buffer: Vec::new(),
        })
    }
}

impl Executor for OrtPixels {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        let failed = |error: ::ort::Error| failure::explain(error, batch.len(), batch.longest(), cancel);
        let PixelBinding { pixel_values, layout, size: [height, width], scale, .. } = &self.binding;
        let numbers = height * width * 3;
        self.buffer.resize(batch.len() * numbers, 0.0);
        for (into, input) in self.buffer.chunks_exact_mut(numbers).zip(batch.inputs()) {
            let pixels = input.pixels().filter(|pixels| pixels.values().len() == numbers);
            let pixels = pixels.ok_or_else(|| RuntimeError::Binding {
                found: format!(
                    "a sample holds no image of {height} x {width} pixels, and the graph takes nothing else"
                ),
                advice: "send images to this model".to_owned(),
            })?;
            scale.fill(into, pixels.values(), *layout);
        }
        let shape = match layout {
            PixelLayout::ChannelsFirst => [batch.len(), 3, *height, *width],
            PixelLayout::ChannelsLast => [batch.len(), *height, *width, 3],
        };
        let value = TensorRef::from_array_view((shape, self.buffer.as_slice())).map(SessionInputValue::from);
        let values = vec![(pixel_values.as_str().into(), value.map_err(failed)?)];
        let results = self.options.run(&mut self.session, values, cancel, failed)?;
        let mut rows: Vec<Vec<RowTensor>> =
            batch.inputs().iter().map(|_| Vec::with_capacity(self.outputs.len())).collect();
        for (output, value) in self.outputs.iter().zip(results.values()) {
            output.split(&value, [batch.len(), batch.longest()], batch, &mut rows)?;
        }
        Ok(rows)
    }
}
