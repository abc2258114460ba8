//! Padded rows in half precision, on the processor: what an NVIDIA GPU computes of encoders that have no packed rows.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{cases, name, recorded, repository, score, wanted};
use crate::support::Server;

/// What half precision may change of a score, relative to its size or to 1.
const TOLERANCE: f64 = 1e-2;
/// What 32 bits change at most: scores that are all nearer were computed in 32 bits.
const EXACT: f64 = 1e-5;

const ENCODERS: [&str; 6] =
    ["bert", "deberta-v2-convolution", "deberta-v3", "distilbert", "modernbert", "modernbert-mean"];

fn folders(names: &[&str]) -> Vec<PathBuf> {
    recorded().into_iter().filter(|folder| names.contains(&&*name(folder))).collect()
}

/// A server of these checkpoints in that form, held to no scores of 32 bits.
async fn served(folders: &[PathBuf]) -> Server {
    let repository = repository(folders);
    for folder in folders {
        repository.write_form(&name(folder), "half_rows");
        fs::remove_file(repository.path().join(name(folder)).join("expected.json")).unwrap();
    }
    Server::of(&repository).await
}

#[tokio::test]
async fn encoders_give_nearly_the_scores_of_transformers_in_their_order_alone_and_in_company() {
    let folders = folders(&ENCODERS);
    assert_eq!(folders.len(), ENCODERS.len());
    let server = served(&folders).await;
    for folder in &folders {
        let (model, cases) = (name(folder), cases(folder));
        let tolerance = |wanted: f64| TOLERANCE * wanted.abs().max(1.0);
        let together = score(&server, &model, &cases.iter().collect::<Vec<_>>()).await;
        let mut gaps = Vec::new();
        for (case, found) in cases.iter().zip(&together) {
            let (found, wanted) = (found[0], wanted(case)[0]);
            gaps.push((found - wanted).abs());
            assert!((found - wanted).abs() <= tolerance(wanted), "{model}: {found} is not {wanted}");
            for (other, others) in cases.iter().zip(&together) {
                let clear = super::wanted(other)[0] - wanted > 2.0 * tolerance(wanted);
                assert!(!clear || others[0] > found, "{model}: {found} and {} in another order", others[0]);
            }
        }
        assert!(gaps.iter().any(|gap| *gap > EXACT), "{model} computes in 32 bits: {gaps:?}");
        let server = served(std::slice::from_ref(folder)).await;
        let alone = score(&server, &model, &[&cases[0]]).await;
        assert!((alone[0][0] - together[0][0]).abs() <= TOLERANCE, "{model}: {alone:?} is not {together:?}");
    }
}

#[tokio::test]
async fn decoders_and_weights_that_half_precision_does_not_hold_are_refused_with_what_to_write() {
    let folders = folders(&["deberta-v3", "qwen3"]);
    let repository = repository(&folders);
    let weights = repository.path().join("deberta-v3/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header: usize = u64::from_le_bytes(bytes[..8].try_into().unwrap()).try_into().unwrap();
    let told: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let dense = &told["pooler.dense.weight"];
    let query = &told["deberta.encoder.layer.0.attention.self.query_proj.weight"];
    for tensor in [dense, query] {
        assert_eq!(tensor["dtype"], "BF16");
        let start = 8 + header + usize::try_from(tensor["data_offsets"][0].as_u64().unwrap()).unwrap();
        // 2¹⁷, which is more than half precision holds.
        bytes[start..start + 2].copy_from_slice(&0x4800_u16.to_le_bytes());
    }
    fs::write(&weights, bytes).unwrap();
    for folder in &folders {
        fs::remove_file(repository.path().join(name(folder)).join("expected.json")).unwrap();
        repository.write_form(&name(folder), "half_rows");
    }
    let server = Server::of(&repository).await;
    let qwen3 = server.get("/v1/models/qwen3").await;
    let no_rows = "decoders have no form of padded rows in 16 bits; write form = \\\"rows\\\"";
    assert!(qwen3.text.contains(no_rows), "{}", qwen3.text);
    let deberta = server.get("/v1/models/deberta-v3").await.body;
    let reason = deberta["reason"].as_str().unwrap();
    // The head computes in 32 bits, which hold it.
    for part in ["query_proj.weight:float16 holds 131072", "16 bits don't", "form = \"rows\""] {
        assert!(reason.contains(part), "{reason}");
    }
}
