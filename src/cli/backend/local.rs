//! Models in this process, without HTTP.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use karat_engine::telemetry::EngineMetrics;
use karat_engine::{
    engine::{Engine, SampleReport, ScoreRequest},
    repository::{Listed, LoadOptions, ModelSource, ModelStatus, Watch},
    schedule::Admission,
};
use karat_hub::{Hub, HubSettings};
use karat_runtime::ort::Library;
use prometheus::Registry;

use super::{Failure, Input, Overrides, Scored};
use crate::cli::CommandError;

/// Scores are written down as they come, so that little is gained by remembering them.
const CACHE_BYTES: u64 = 64 << 20;
const QUEUE_TOKENS: usize = 1 << 20;
const CALIBRATION: Duration = Duration::from_secs(2);
/// Memory for what decoders computed of prompts.
const PREFIX_CACHE_BYTES: u64 = 256 << 20;

/// What is loaded.
pub(super) enum Models {
    /// A folder of models.
    Repository(PathBuf),
    /// One model by its place.
    One(ModelSource),
}

pub(in crate::cli) struct Local {
    engine: Engine,
    overrides: Overrides,
}

impl Local {
    pub(super) fn load(models: Models, onnxruntime: Option<&Path>, overrides: Overrides) -> Result<Self, CommandError> {
        let library = Library::load(onnxruntime)?;
        let (repository, models) = match models {
            Models::Repository(folder) => (Some(folder), Vec::new()),
            Models::One(source) => (None, vec![source]),
        };
        let engine = Engine::new(CACHE_BYTES);
        let metrics = EngineMetrics::register(&Registry::new())?;
        let options = LoadOptions {
            repository,
            models,
            hub: Hub::new(HubSettings::from_env()),
            queue_tokens: QUEUE_TOKENS,
            queue_time: None,
            calibration: CALIBRATION,
            prefix_cache_bytes: PREFIX_CACHE_BYTES,
            required: Vec::new(),
            watch: Watch::default(),
        };
        engine.load(&library, &metrics, &options)?;
        if let Some(Listed { status: ModelStatus::Failed(reason), .. }) =
            engine.repository().models().get(&overrides.model)
        {
            return Err(reason.clone().into());
        }
        engine.model(&overrides.model)?;
        Ok(Self { engine, overrides })
    }

    pub(super) async fn request(&self, inputs: &[&Input]) -> Result<Vec<Scored>, Failure> {
        let fatal = |error: karat_engine::engine::ScoreError| Failure::Fatal(error.into());
        let mut samples = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            samples.push(input.sample().map_err(|reason| Failure::Sample { index, reason })?);
        }
        let request = ScoreRequest::new(self.overrides.model.clone(), samples)
            .map_err(fatal)?
            .with_aggregate(self.overrides.aggregate.clone())
            .with_transforms(self.overrides.transforms.as_ref().map(|rules| rules.0.clone()))
            .with_truncation(self.overrides.truncation)
            .with_admission(Admission::Always);
        let report = self.engine.score(request).await.map_err(|error| match error.sample() {
            Some(index) => Failure::Sample { index, reason: error.to_string() },
            None => fatal(error),
        })?;
        let version = report.version.as_str();
        Ok(report.results.into_iter().map(|sample| scored(sample, version)).collect())
    }

    pub(super) fn close(self) {
        self.engine.repository().drain();
    }
}

fn scored(sample: SampleReport, version: &str) -> Scored {
    Scored {
        reward: sample.reward.get(),
        raw: sample.raw.get(),
        mean: sample.ensemble.mean.get(),
        worst_case: sample.ensemble.worst_case.get(),
        variance: sample.ensemble.variance.get(),
        members: sample.ensemble.members.into_iter().map(karat_rules::domain::Reward::get).collect(),
        tokens: sample.tokens,
        truncated: sample.cut.is_cut(),
        model_version: version.to_owned(),
    }
}
