//! How each server wants to be asked.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{Failure, workload::Sample};

/// The shape of a server's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// karat, `POST /v1/score`
    Karat,
    /// The comparison server of `loadtest/peers/`, `POST /score`
    Fastapi,
    /// Text Embeddings Inference, `POST /rerank`: one prompt a request
    TeiRerank,
    /// Text Embeddings Inference, `POST /predict`: any pairs
    TeiPredict,
    /// Infinity, `POST /rerank`: one prompt a request
    Infinity,
}

/// What only some servers understand.
#[derive(Debug, Clone, Default)]
pub(crate) struct CandidateDetails {
    pub(crate) priority: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
}

impl Dialect {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Karat => "/v1/score",
            Self::Fastapi => "/score",
            Self::TeiRerank | Self::Infinity => "/rerank",
            Self::TeiPredict => "/predict",
        }
    }

    /// The request for `samples`, at least one.
    pub(crate) fn body(self, model: &str, samples: &[&Sample], details: &CandidateDetails) -> Result<Value, Failure> {
        let pairs = || -> Vec<Value> {
            samples.iter().map(|sample| json!({"prompt": sample.prompt, "response": sample.response})).collect()
        };
        let responses = || -> Vec<&str> { samples.iter().map(|sample| sample.response.as_str()).collect() };
        let mut body = match self {
            Self::Karat => json!({"model": model, "inputs": pairs()}),
            Self::Fastapi => json!({"inputs": pairs()}),
            Self::TeiPredict => {
                let inputs: Vec<[&str; 2]> =
                    samples.iter().map(|sample| [sample.prompt.as_str(), sample.response.as_str()]).collect();
                json!({"inputs": inputs, "raw_scores": true})
            }
            Self::TeiRerank => json!({"query": one_prompt(samples)?, "texts": responses(), "raw_scores": true}),
            Self::Infinity => {
                json!({"model": model, "query": one_prompt(samples)?, "documents": responses(), "raw_scores": true})
            }
        };
        if let Some(priority) = &details.priority {
            body["priority"] = json!(priority);
        }
        if let Some(timeout) = details.timeout_ms {
            body["timeout_ms"] = json!(timeout);
        }
        Ok(body)
    }
}

fn one_prompt<'a>(samples: &[&'a Sample]) -> Result<&'a str, Failure> {
    let [first, others @ ..] = samples else { return Err("a request needs a sample".into()) };
    if others.iter().any(|sample| sample.prompt != first.prompt) {
        return Err("this dialect takes one prompt a request: use --groups or --batch 1".into());
    }
    Ok(&first.prompt)
}
