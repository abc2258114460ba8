//! A Hugging Face Hub of one model, with what `karat` asks of the real one.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use super::karat;

/// The model's files, and what the Hub says and saw.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The commit that `main` stands for.
    pub(crate) commit: String,
    /// The token without which nothing is told.
    pub(crate) token: Option<String>,
    /// Sizes that are told instead of the true ones.
    pub(crate) sizes: BTreeMap<String, u64>,
    /// What was asked: the path, and of files also the range.
    pub(crate) asked: Vec<String>,
}

/// A running Hub, which stops answering when this value is dropped, and the home of a user who knows it.
pub(crate) struct FakeHub {
    address: SocketAddr,
    pub(crate) held: Arc<Mutex<Held>>,
    pub(crate) home: TempDir,
    server: JoinHandle<()>,
}

impl FakeHub {
    /// The model `org/model` with the files of a folder.
    pub(crate) async fn of(folder: &Path) -> Self {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files =
            files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()));
        let held = Held { files: files.collect(), commit: "1a".repeat(20), ..Held::default() };
        let held = Arc::new(Mutex::new(held));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&held));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, held, home: TempDir::new().unwrap(), server }
    }

    /// From now on nobody answers at its address.
    pub(crate) fn stop(&self) {
        self.server.abort();
    }

    /// `karat` as a user of this Hub runs it.
    pub(crate) fn karat(&self, arguments: &[&str]) -> Command {
        let mut command = karat(arguments);
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy().to_uppercase();
            if ["HF_", "HUGGING", "TRANSFORMERS_", "XDG_"].iter().any(|begin| known.starts_with(begin))
                || known.ends_with("_PROXY")
            {
                command.env_remove(name);
            }
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", format!("http://{}", self.address));
        command
    }

    /// A path in the cache, below the model's folder.
    pub(crate) fn cached(&self, path: &str) -> std::path::PathBuf {
        self.home.path().join("hub/models--org--model").join(path)
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.held.lock().unwrap().asked)
    }
}

/// The digest of a file, which names its blob.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn answer(State(held): State<Arc<Mutex<Held>>>, request: Request) -> Response {
    let mut held = held.lock().unwrap();
    let path = request.uri().path().to_owned();
    let sent =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if held.token.as_deref().is_some_and(|token| sent != Some(token)) {
        held.asked.push(path);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some(revision) = path.strip_prefix("/api/models/org/model/revision/") {
        let known = revision == "main" || revision == held.commit;
        let siblings = held.files.iter().map(|(name, bytes)| {
            let size = held.sizes.get(name).copied().unwrap_or(bytes.len() as u64);
            // As the Hub does it: large files are known by their digest, small ones by git's name for them.
            if name.ends_with(".safetensors") {
                json!({ "rfilename": name, "size": size, "blobId": "0b", "lfs": { "sha256": sha256(bytes), "size": size } })
            } else {
                json!({ "rfilename": name, "size": size, "blobId": &sha256(bytes)[..40] })
            }
        });
        let reply = json!({ "sha": held.commit, "siblings": siblings.collect::<Vec<_>>() });
        held.asked.push(path);
        return if known { Json(reply).into_response() } else { StatusCode::NOT_FOUND.into_response() };
    }
    let commit = held.commit.clone();
    let Some(name) = path.strip_prefix(&format!("/org/model/resolve/{commit}/")) else {
        held.asked.push(path);
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(bytes) = held.files.get(name).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let range = request.headers().get(header::RANGE).unwrap().to_str().unwrap().to_owned();
    held.asked.push(format!("{name} {range}"));
    file(name, &bytes, &range, &commit)
}

fn file(name: &str, bytes: &[u8], range: &str, commit: &str) -> Response {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = last.parse::<usize>().map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
    let digest = sha256(bytes);
    let tag = if name.ends_with(".safetensors") { &digest[..] } else { &digest[..40] };
    let mut headers = HeaderMap::new();
    headers.insert("x-repo-commit", commit.parse().unwrap());
    headers.insert(header::ETAG, format!("\"{tag}\"").parse().unwrap());
    headers.insert(header::CONTENT_RANGE, format!("bytes {first}-{}/{}", end - 1, bytes.len()).parse().unwrap());
    (StatusCode::PARTIAL_CONTENT, headers, Body::from(bytes[first..end].to_vec())).into_response()
}
