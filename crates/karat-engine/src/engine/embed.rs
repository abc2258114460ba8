//! Vectors that tell responses apart, for selection rules that look for difference.

use karat_rules::domain::ModelName;

use super::{Embeddings, Engine, ScoreError, ScoreRequest};

impl Engine {
    /// Whether a model embeds samples; known before anything is computed.
    ///
    /// # Errors
    /// When the model takes no requests, or gives no embeddings.
    pub fn check_embeds(&self, model: &ModelName) -> Result<(), ScoreError> {
        if self.model(model)?.gives_embeddings() {
            return Ok(());
        }
        Err(ScoreError::EmbedsNothing { model: model.clone() })
    }

    /// Embeds every sample of a request.
    ///
    /// Vectors come from the same cache and the same passes as scores.
    ///
    /// # Errors
    /// One error for the whole request: see [`ScoreError`].
    pub async fn embed(&self, request: ScoreRequest) -> Result<Embeddings, ScoreError> {
        self.check_embeds(&request.model)?;
        let report = self.score(request).await?;
        let missing = || ScoreError::EmbedsNothing { model: report.model.clone() };
        let vectors = report.results.iter().map(|sample| sample.detail().embedding.clone().ok_or_else(missing));
        Ok(Embeddings {
            vectors: vectors.collect::<Result<_, _>>()?,
            cuts: report.results.iter().map(|sample| sample.cut).collect(),
            model: report.model,
            version: report.version,
            usage: report.usage,
            timings: report.timings,
            passes: report.passes,
        })
    }
}
