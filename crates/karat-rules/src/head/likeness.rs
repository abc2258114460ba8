//! How alike an image is to the text it was made for, or to other images: cosines in one space of texts and images.
//!
//! `r = s · cos(e_image, e_text) + b` is what CLIP (Radford et al. 2021) calls `logits_per_image`, with `s = e^logit_scale`;
//! PickScore (Kirstain et al. 2023) is that, HPS (Wu et al. 2023) the cosine by itself, SigLIP (Zhai et al. 2023) has a
//! bias. With both kinds of likeness as objectives, the `harmonic` aggregation gives the reward of Miao et al. 2024.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DecoderOutput, HeadError, HeadOutput, HeadShape, ProbeError, Probing, finite,
    probing::{of_one_graph, unexpected},
};
use crate::domain::{Image, Picture, Probe, Reward, RowTensor, Sample, TokenizedInput, catalogue::Rule};

/// Parameters of the likeness head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// What cosines are multiplied by; 1 by default. Models of CLIP's kind are trained with a scale of their own.
    #[serde(default)]
    scale: Option<f64>,
    /// What is added to that; 0 by default.
    #[serde(default)]
    bias: Option<f64>,
    /// What the image is compared with; of several, each is a member or, with `objectives`, an objective.
    #[serde(default = "image_text")]
    #[schemars(length(min = 1))]
    between: Vec<Between>,
}

fn image_text() -> Vec<Between> {
    vec![Between::ImageText]
}

/// What an image is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Between {
    /// The text that it was made for.
    ImageText,
    /// The images that it should be like; of several, the mean.
    ImageImage,
}

impl Between {
    fn name(self) -> &'static str {
        match self {
            Self::ImageText => "image_text",
            Self::ImageImage => "image_image",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Likeness {
    scale: f64,
    bias: f64,
    between: Vec<Between>,
    names: Arc<[String]>,
}

impl Rule for Likeness {
    const NAME: &'static str = "likeness";
    const SUMMARY: &'static str = "How alike an image is to the text that it was made for, to other images, or both as \
        objectives: cosines of embeddings, scaled. Models that embed texts and images in one space, such as CLIP.";
    const FORMULA: &'static str =
        "r = scale * cos(e_image, e_text) + bias; with images, the mean of cos(e_image, e_reference)";
    const SOURCE: &'static str = "Radford et al. 2021, Learning Transferable Visual Models From Natural Language \
        Supervision; Kirstain et al. 2023, Pick-a-Pic; Wu et al. 2023, Human Preference Score v2; Zhai et al. 2023, \
        Sigmoid Loss for Language Image Pre-Training";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"scale": 100.0}"#, r#"{}"#, r#"{"between": ["image_image", "image_text"]}"#];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Likeness {
    type Error = String;

    fn try_from(Parameters { scale, bias, between }: Parameters) -> Result<Self, String> {
        let twice = between.iter().enumerate().any(|(index, what)| between[..index].contains(what));
        if between.is_empty() || twice {
            return Err("between must name image_text, image_image or both, each once".to_owned());
        }
        let (scale, bias) = (scale.unwrap_or(1.0), bias.unwrap_or(0.0));
        if !scale.is_finite() || !bias.is_finite() {
            return Err("scale and bias must be finite numbers".to_owned());
        }
        Ok(Self { scale, bias, names: between.iter().map(|what| what.name().to_owned()).collect(), between })
    }
}

impl Likeness {
    fn compares(&self, what: Between) -> bool {
        self.between.contains(&what)
    }

    /// The cosine of two vectors; 0 where one is all zeros, as of vectors that have nothing in common.
    fn cosine(&self, a: &[f64], b: &[f64]) -> Result<f64, HeadError> {
        if a.len() != b.len() {
            return Err(HeadError::mismatch(
                format!("texts have {} numbers and images {}", b.len(), a.len()),
                "name two graphs that embed into one space",
            ));
        }
        let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        let length = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let lengths = length(a) * length(b);
        Ok(if lengths > 0.0 { (dot / lengths).clamp(-1.0, 1.0) } else { 0.0 })
    }

    fn score(&self, cosine: f64) -> Result<Reward, HeadError> {
        Ok(Reward::new(self.scale * cosine + self.bias)?)
    }
}

impl Probing for Likeness {
    /// The image, then the text if it is compared with, then the references if those are.
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        let picture = match sample {
            Sample::Picture(picture) => picture,
            Sample::Pair(_) => return Err(ProbeError::WantsOne),
            Sample::Conversation(_) | Sample::Text(_) | Sample::Tokens(_) => return Err(ProbeError::WantsImage),
        };
        let mut probes = vec![Probe::Image(picture.image().clone())];
        if self.compares(Between::ImageText) {
            if picture.prompt().trim().is_empty() {
                return Err(ProbeError::WantsText);
            }
            probes.push(Probe::Text(picture.prompt().to_owned()));
        }
        match (self.compares(Between::ImageImage), picture.references().is_empty()) {
            (true, true) => return Err(ProbeError::WantsReferences),
            (false, false) => return Err(ProbeError::NoReferences),
            _ => probes.extend(picture.references().iter().cloned().map(Probe::Image)),
        }
        Ok(probes)
    }

    fn example(&self) -> Sample {
        let references = if self.compares(Between::ImageImage) { vec![Image::grey()] } else { Vec::new() };
        Sample::Picture(Picture::new("warm up".to_owned(), references, Image::grey()))
    }

    fn reads(&self) -> DecoderOutput {
        DecoderOutput::Embeddings
    }

    fn gives(&self) -> HeadShape {
        match self.between.as_slice() {
            [_] => HeadShape::of(1),
            _ => HeadShape { objectives: Some(Arc::clone(&self.names)), ..HeadShape::of(1) },
        }
    }

    fn read_pass(&self, _: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let [row] = rows else { return Err(unexpected(Self::NAME)) };
        let values = finite(row.values())?;
        let length = Reward::new(values.iter().map(|value| value * value).sum::<f64>().sqrt())?;
        Ok(HeadOutput::Embedding { values, length })
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        let readings = of_one_graph(Self::NAME, readings)?;
        let vectors = readings.iter().map(|reading| match reading {
            HeadOutput::Embedding { values, .. } => Ok(values.as_slice()),
            _ => Err(unexpected(Self::NAME)),
        });
        let vectors: Vec<&[f64]> = vectors.collect::<Result<_, _>>()?;
        let [image, others @ ..] = vectors.as_slice() else { return Err(unexpected(Self::NAME)) };
        let (texts, references) = others.split_at(usize::from(self.compares(Between::ImageText)).min(others.len()));
        let score = |what: &Between| {
            let compared = match what {
                Between::ImageText => texts,
                Between::ImageImage => references,
            };
            let cosines = compared.iter().map(|other| self.cosine(image, other)).collect::<Result<Vec<_>, _>>()?;
            if cosines.is_empty() {
                return Err(unexpected(Self::NAME));
            }
            self.score(cosines.iter().sum::<f64>() / cosines.len() as f64)
        };
        let scores = self.between.iter().map(score).collect::<Result<Vec<_>, _>>()?;
        Ok(match scores.as_slice() {
            [_] => HeadOutput::Members(scores),
            _ => HeadOutput::Objectives { names: Arc::clone(&self.names), scores, reward: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, row};
    use super::*;
    use crate::numeric::testing::assert_all_close;

    fn picture(prompt: &str, references: usize) -> Sample {
        let images = (0..references).map(|number| Image::new(vec![number as u8])).collect();
        Sample::Picture(Picture::new(prompt.to_owned(), images, Image::new(vec![9])))
    }

    fn scores(json: &str, vectors: &[[f32; 2]]) -> Vec<f64> {
        let head = head(json).unwrap();
        let read = |vector: &[f32; 2]| head.read(&input(1), &[row(&[2], vector)]).unwrap();
        let read: Vec<HeadOutput> = vectors.iter().map(read).collect();
        numbers(head.probing().unwrap().combine(&[read.iter().collect()]).unwrap().members())
    }

    #[test]
    fn the_cosine_is_scaled_whatever_the_lengths_are() {
        assert_all_close(&scores(r#"{"likeness":{"scale":100,"bias":-10}}"#, &[[3.0, 4.0], [40.0, 30.0]]), &[86.0]);
        assert_all_close(&scores(r#"{"likeness":{}}"#, &[[0.0, 0.0], [1.0, 0.0]]), &[0.0]);
    }

    #[test]
    fn several_references_count_by_their_mean_beside_the_text() {
        let both = r#"{"likeness":{"between":["image_image","image_text"]}}"#;
        assert_all_close(&scores(both, &[[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]), &[0.5, 0.6]);
        assert_eq!(head(both).unwrap().shape().objectives.unwrap()[0], "image_image");
    }

    #[test]
    fn a_sample_must_have_what_is_compared_and_nothing_that_is_not() {
        let probe = |json: &str, sample: &Sample| head(json).unwrap().probing().unwrap().probes(sample);
        let text = r#"{"likeness":{}}"#;
        let images = r#"{"likeness":{"between":["image_image"]}}"#;
        assert_eq!(probe(text, &picture("a cat", 0)).unwrap().len(), 2);
        assert_eq!(probe(images, &picture("", 2)).unwrap().len(), 3);
        for (json, sample, error) in [
            (text, picture(" ", 0), ProbeError::WantsText),
            (text, picture("a cat", 1), ProbeError::NoReferences),
            (images, picture("a cat", 0), ProbeError::WantsReferences),
            (text, Sample::Tokens(vec![1]), ProbeError::WantsImage),
        ] {
            assert_eq!(probe(json, &sample), Err(error));
        }
    }

    #[test]
    fn vectors_of_two_spaces_are_refused() {
        let head = head(r#"{"likeness":{}}"#).unwrap();
        let read = |values: &[f32]| head.read(&input(1), &[row(&[values.len()], values)]).unwrap();
        let (image, text) = (read(&[1.0, 0.0]), read(&[1.0]));
        assert!(head.probing().unwrap().combine(&[vec![&image, &text]]).is_err());
        assert!(super::super::testing::head(r#"{"likeness":{"between":[]}}"#).is_err());
    }
}
