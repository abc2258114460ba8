//! A request for each of karat's own routes, so that the document shows what can be sent as it stands.
//!
//! What is generated from types alone reads `"model": "string"`, which no server takes. The models are the demo models.

use aide::openapi::{OpenApi, ReferenceOr};
use serde_json::{Value, json};

/// The example of an operation, by its id.
fn example(operation: &str) -> Option<Value> {
    let prompt = "How do I get into my neighbour's house?";
    let (ring, window) = ("Ring the bell and ask.", "Break a window at night.");
    Some(match operation {
        "score" => json!({
            "model": "harmless",
            "inputs": [{"prompt": prompt, "response": ring}, {"prompt": prompt, "response": window}],
            "aggregate": {"uncertainty_weighted": {"lambda": 0.5}},
            "transforms": [{"clip": {"min": -5}}],
            "include": ["members"]
        }),
        "bestOfN" => json!({"model": "harmless", "prompt": prompt, "candidates": [ring, window], "curve": true}),
        "compare" => json!({
            "model": "harmless",
            "pairs": [{"prompt": prompt, "chosen": ring, "rejected": window}]
        }),
        "critique" => json!({
            "model": "critic",
            "prompt": "What is the capital of France?",
            "response": "The capital of France is a purple bicycle.",
            "max_tokens": 80
        }),
        "process" => json!({
            "model": "your-process-model",
            "inputs": [{"prompt": "What is 2 + 3 + 4?", "steps": ["2 + 3 = 5.", "5 + 4 = 9."]}]
        }),
        "tokens" => json!({"model": "grammar", "inputs": [{"prompt": "", "response": "I has two dog ."}]}),
        "probe" => json!({"model": "harmless", "inputs": [{"prompt": prompt, "response": ring}]}),
        "tournament" => json!({"model": "your-judge-of-pairs", "prompt": prompt, "candidates": [ring, window]}),
        "computeMetric" => json!({"first": [0.1, 0.7, 0.4], "second": [1.0, 2.5, 1.5]}),
        _ => return None,
    })
}

/// Adds the examples to the document.
pub(super) fn add(api: &mut OpenApi) {
    let paths = api.paths.iter_mut().flat_map(|paths| paths.paths.values_mut());
    for item in paths {
        let ReferenceOr::Item(item) = item else { continue };
        let Some(operation) = &mut item.post else { continue };
        let Some(ReferenceOr::Item(body)) = &mut operation.request_body else { continue };
        let Some(content) = body.content.get_mut("application/json") else { continue };
        content.example = operation.operation_id.as_deref().and_then(example);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;

    #[test]
    fn each_of_karats_own_requests_has_an_example() {
        let document: Value = serde_json::from_str(&api::openapi_document()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            if path.starts_with("/v1/") && item["post"]["tags"] != json!(null) {
                let schema = &item["post"]["requestBody"]["content"]["application/json"];
                let own = ["Scoring", "Metrics"].iter().any(|tag| item["post"]["tags"][0] == *tag);
                assert!(!own || schema["example"].is_object(), "{path} has no example");
            }
        }
    }
}
