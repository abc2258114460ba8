//! What is told of a checkpoint: to people as comments above its manifest, which stay true where both go to a file, and to
//! programs as JSON.

use std::{error::Error, path::Path};

use karat_checkpoint::{Checkpoint, CheckpointError, Form, Graph};
use karat_engine::{
    manifest::ManifestError,
    repository::{EXPECTED_FILE, References},
};
use karat_hub::ModelId;
use karat_runtime::free_memory;
use serde::Serialize;

use crate::cli::{CommandError, style::aside};

const LICENCES: [&str; 3] = ["LICENSE", "LICENSE.txt", "LICENSE.md"];

/// All that is told.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// Whether it can be served.
    pub(super) served: bool,
    /// What stands in the way, a sentence each.
    pub(super) problems: Vec<String>,
    /// What was found; none where the checkpoint can't be read.
    #[serde(flatten)]
    pub(super) found: Option<Found>,
}

/// A checkpoint that can be read.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    /// The models of the Hub that it is made of, each as one commit.
    hub: Vec<String>,
    /// How many numbers its weights are.
    parameters: usize,
    /// The types in which they are stored.
    stored_as: Vec<String>,
    /// What the weights take on the processor, in mebibytes.
    processor_mb: u64,
    /// How much of this machine's memory is free.
    free_mb: Option<u64>,
    /// What the weights take on a GPU, in 16 bits; none of what is computed in 32.
    gpu_mb: Option<u64>,
    /// Why it is served as padded rows on a GPU; none where it isn't.
    gpu_padded: Option<String>,
    /// The file of its licence.
    licence: Option<&'static str>,
    /// How it compares with the scores that lie beside it; none where there are none, or where it differs.
    references: Option<Compared>,
    #[serde(skip)]
    is_referenced: bool,
    /// Why the manifest is what it is.
    reasons: Vec<String>,
    /// The manifest that it is served by.
    pub(super) manifest: String,
}

#[derive(Debug, Serialize)]
struct Compared {
    count: usize,
    largest_difference: f64,
    tolerance: f64,
}

impl Told {
    /// Of what can't be read.
    pub(super) fn unreadable(error: &CommandError) -> Self {
        Self { served: false, problems: problems(error.as_ref()), found: None }
    }

    /// Of what can be read, and what stands in its way nevertheless.
    pub(super) fn of(found: Found, problems: Vec<String>) -> Self {
        Self { served: problems.is_empty(), problems, found: Some(found) }
    }
}

/// Each problem by itself where several were found at once.
fn problems(error: &(dyn Error + Send + Sync + 'static)) -> Vec<String> {
    let of_checkpoint = match error.downcast_ref::<ManifestError>() {
        Some(ManifestError::Checkpoint(error)) => Some(error),
        _ => error.downcast_ref::<CheckpointError>(),
    };
    of_checkpoint.map_or_else(|| vec![error.to_string()], |error| error.problems.clone())
}

/// What the weights of graphs take together.
fn mebibytes<const N: usize>(graphs: [Option<&Graph>; N], bytes: impl Fn(&Graph) -> u64) -> u64 {
    graphs.into_iter().flatten().map(bytes).sum::<u64>() >> 20
}

impl Found {
    pub(super) fn new(
        checkpoint: &Checkpoint,
        folder: &Path,
        hub: &[ModelId],
        references: Option<References>,
        manifest: String,
    ) -> Result<Self, CommandError> {
        let packed = Form::Packed(checkpoint.half());
        let on_processor = [Some(checkpoint.graph()), checkpoint.images()];
        let on_gpu = match checkpoint.form_on_gpu() {
            Form::GpuRows => None,
            form => Some([Some(checkpoint.graph_for(form)?), checkpoint.images_for(form)?]),
        };
        Ok(Self {
            hub: hub.iter().map(ToString::to_string).collect(),
            parameters: checkpoint.parameters(),
            stored_as: checkpoint.types().into_iter().collect(),
            processor_mb: mebibytes(on_processor, |graph| graph.memory(true, checkpoint.is_decoder())),
            free_mb: free_memory().map(|free| free >> 20),
            gpu_padded: checkpoint.lacks(packed),
            gpu_mb: on_gpu.map(|graphs| mebibytes(graphs.each_ref().map(Option::as_ref), |it| it.memory(false, true))),
            licence: LICENCES.into_iter().find(|name| folder.join(name).is_file()),
            references: references.map(|References { count, largest_difference, tolerance }| Compared {
                count,
                largest_difference,
                tolerance,
            }),
            is_referenced: folder.join(EXPECTED_FILE).exists(),
            reasons: checkpoint.reasons().to_vec(),
            manifest,
        })
    }

    /// The comments and the manifest.
    pub(super) fn to_text(&self) -> String {
        let lines = self.sentences().into_iter().map(|sentence| aside(format!("# {sentence}")).to_string());
        let lines: Vec<String> = lines.collect();
        format!("{}\n\n{}", lines.join("\n"), self.manifest)
    }

    fn sentences(&self) -> Vec<String> {
        let Self { parameters, processor_mb: needed, .. } = self;
        let mut told: Vec<String> = self.hub.iter().map(|id| format!("Of the Hugging Face Hub: {id}")).collect();
        let stored = self.stored_as.join(" and ");
        told.push(format!("{parameters} parameters, stored as {stored}, computed in 32 bits on the processor."));
        let free = self.free_mb.map(|free| format!("; {free} MB are free here")).unwrap_or_default();
        told.push(format!("Serving it takes {needed} MB of memory for weights{free}."));
        told.push(match (self.gpu_mb, &self.gpu_padded) {
            (Some(needed), None) => {
                format!("On an NVIDIA GPU it takes {needed} MB, in 16 bits, beside its blocks of keys and values.")
            }
            (Some(needed), Some(reason)) => {
                format!("On an NVIDIA GPU it takes {needed} MB, in 16 bits, and its rows are padded: {reason}.")
            }
            (None, reason) => format!(
                "On an NVIDIA GPU it is computed in 32 bits, and not in packed rows: {}.",
                reason.as_deref().unwrap_or_default()
            ),
        });
        told.push(self.licence.map_or_else(
            || "No licence lies beside it: see the model's card.".to_owned(),
            |licence| format!("Its licence: {licence}"),
        ));
        if let Some(Compared { count, largest_difference, tolerance }) = &self.references {
            told.push(format!(
                "{count} of {count} references within {tolerance}: the largest difference is {largest_difference:.1e}."
            ));
        } else if !self.is_referenced {
            told.push(format!("No {EXPECTED_FILE} lies beside it: nobody has compared its scores with its authors'."));
        }
        told.extend(self.reasons.iter().cloned());
        told
    }
}
