//! Who may use the server: keys, what each may do, and how much of it.
//!
//! A key is 32 random bytes, so that its SHA-256 tells nothing of it and needs no salt. What a key may do is told where a
//! request comes in; which models it may use and how many tokens it has left, where the model of the request is known.

mod bucket;
mod file;
mod places;

use std::{
    borrow::Cow,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use karat_engine::schedule::Priority;
use karat_rules::domain::ModelName;
use tokio::time::Instant;

use super::{
    AppState, dialects,
    problem::{Problem, ProblemType},
    visit::Visit,
};
use bucket::Bucket;
use file::{Digest, KeysError, digest};
pub(crate) use file::{Entry, generate};
use places::Place;
pub(super) use places::is_probe;

/// Where clients of some servers put their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What one key may do.
#[derive(Debug)]
pub(super) struct Key {
    /// Whose it is.
    pub(super) name: String,
    digest: Digest,
    models: Option<Vec<ModelName>>,
    /// The highest priority that its requests get.
    pub(super) priority: Priority,
    admin: bool,
    bucket: Option<Arc<Bucket>>,
}

impl Key {
    /// Whether it may use a model now.
    pub(super) fn check(&self, model: &ModelName) -> Result<(), Problem> {
        if let Some(models) = &self.models
            && !models.iter().any(|allowed| allowed == model || allowed.as_str() == model.base())
        {
            let detail = format!("the key {} may not use the model {model}", self.name);
            return Err(Problem::new(ProblemType::KeyForbids, detail));
        }
        let wait = self.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(Instant::now()));
        if wait.is_zero() {
            return Ok(());
        }
        let detail =
            format!("the key {} has used up its tokens; come back after the time that Retry-After says", self.name);
        Err(Problem::new(ProblemType::OutOfTokens, detail).after(wait))
    }

    /// Whether it may see and change what was made with the key of that name.
    pub(super) fn owns(&self, owner: &str) -> bool {
        self.admin || self.name == owner
    }

    /// Counts what a request cost.
    pub(super) fn spend(&self, tokens: usize) {
        if let Some(bucket) = &self.bucket {
            bucket.spend(tokens, Instant::now());
        }
    }
}

/// The keys of a server, read from a file; without a file everybody may score.
#[derive(Debug, Default)]
pub struct Keys(Option<Ring>);

#[derive(Debug)]
struct Ring {
    file: PathBuf,
    current: RwLock<Arc<Vec<Arc<Key>>>>,
}

impl Keys {
    /// Reads a file of keys.
    ///
    /// # Errors
    /// When it can't be read, with everything that is wrong in it.
    pub fn load(file: PathBuf) -> Result<Self, KeysError> {
        let current = RwLock::new(Arc::new(file::read(&file, &[])?));
        Ok(Self(Some(Ring { file, current })))
    }

    /// Reads the file anew. What was there before stays where it can't be read, and what keys have left of their tokens
    /// stays in any case.
    ///
    /// # Errors
    /// When the file can't be read, with everything that is wrong in it.
    pub fn reload(&self) -> Result<(), KeysError> {
        let Some(ring) = &self.0 else { return Ok(()) };
        let read = file::read(&ring.file, &ring.current())?;
        tracing::info!(keys = read.len(), "keys were read anew");
        *ring.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        Ok(())
    }

    /// The file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.as_ref().map(|ring| ring.file.as_path())
    }

    /// Whose key a request comes with; nobody's where there are no keys.
    fn admit(&self, place: Place, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Option<Arc<Key>>, Problem> {
        let Some(ring) = &self.0 else {
            return match place {
                Place::Admin if !is_local(headers, peer) => {
                    let detail =
                        "only this machine may change models; start the server with --keys, and give one admin";
                    Err(Problem::new(ProblemType::KeyForbids, detail))
                }
                _ => Ok(None),
            };
        };
        if place == Place::Health {
            return Ok(None);
        }
        let presented = presented(headers).ok_or_else(|| {
            Problem::new(
                ProblemType::NoKey,
                "send a key: Authorization: Bearer KEY, X-Api-Key: KEY, or http://any:KEY@…",
            )
        })?;
        let key = ring.find(&presented).ok_or_else(|| {
            Problem::new(ProblemType::NoKey, "the server doesn't know this key; ask who runs it for one")
        })?;
        if place == Place::Admin && !key.admin {
            let detail =
                format!("the key {} may not change models; its line in the file of --keys lacks admin", key.name);
            return Err(Problem::new(ProblemType::KeyForbids, detail));
        }
        Ok(Some(key))
    }
}

impl AppState {
    /// The state of what is done for a key after its request was answered: nobody's, where none is named.
    ///
    /// # Errors
    /// When there is no such key any more.
    pub(super) fn on_behalf_of_key(&self, name: Option<&str>) -> Result<Self, Problem> {
        let visit = Visit::default();
        if let (Some(name), Some(ring)) = (name, &self.keys.0) {
            let key = ring.current().iter().find(|key| key.name == name).cloned().ok_or_else(|| {
                Problem::new(ProblemType::KeyForbids, format!("the key {name}, which this was asked with, is no more"))
            })?;
            visit.come_with(key);
        }
        Ok(self.on_behalf_of(visit))
    }
}

impl Ring {
    fn current(&self) -> Arc<Vec<Arc<Key>>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key, found in the same time whichever it is.
    fn find(&self, presented: &[u8]) -> Option<Arc<Key>> {
        use subtle::ConstantTimeEq as _;

        let digest = digest(presented);
        let keys = self.current();
        keys.iter().fold(None, |found, key| if key.digest.ct_eq(&digest).into() { Some(key) } else { found }).cloned()
    }
}

/// The key that a request carries. Many trainers take nothing but a URL, in which it stands as a password, and which
/// their libraries make basic credentials of (RFC 7617).
fn presented(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let after = |scheme: &[u8]| {
        let (found, rest) = authorization?.split_at_checked(scheme.len())?;
        found.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
    };
    let basic = || {
        let credentials = STANDARD.decode(after(b"basic ")?).ok()?;
        let colon = credentials.iter().position(|byte| *byte == b':')?;
        Some(Cow::from(credentials[colon + 1..].to_vec()))
    };
    let header = || headers.get(API_KEY).map(HeaderValue::as_bytes).map(Cow::from);
    after(b"bearer ").map(Cow::from).or_else(basic).or_else(header)
}

/// Whether a request comes from this machine. What a proxy hands on comes from wherever it came from.
fn is_local(headers: &HeaderMap, peer: Option<SocketAddr>) -> bool {
    let handed_on = ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
    !handed_on && peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// Lets in who may come in, and tells the others why not as their client expects it.
pub(super) async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let pattern = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let place = Place::of(request.method(), request.uri().path(), pattern);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    match state.keys.admit(place, request.headers(), peer) {
        Ok(key) => {
            if let Some(visit) = request.extensions().get::<Visit>() {
                if let Some(peer) = peer {
                    visit.come_from(peer.ip());
                }
                if let Some(key) = key {
                    visit.come_with(key);
                }
            }
            next.run(request).await
        }
        Err(problem) => {
            let unknown = problem.kind() == ProblemType::NoKey;
            // Where no route matched, the path tells whose it might have been.
            let route = if pattern.is_empty() { request.uri().path() } else { pattern };
            let mut response = dialects::tell_any(route, request.headers(), &problem);
            if unknown {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn headers(name: &str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn peer(address: &str) -> Option<SocketAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_key_is_known_by_its_digest_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.jsonl");
        let ((one, first), (admin, second)) = (generate().unwrap(), generate().unwrap());
        let entry = |name: &str, digest, admin| Entry { admin, ..Entry::new(name.to_owned(), digest) }.to_string();
        fs::write(&file, [entry("one", first, false), entry("boss", second, true)].join("\n")).unwrap();
        let keys = Keys::load(file.clone()).unwrap();

        let come = |place, name: &str, value: &str| keys.admit(place, &headers(name, value), peer("10.0.0.1:1"));
        for (place, name, value, admitted) in [
            (Place::Health, "", String::new(), Ok(None)),
            (Place::Open, "", String::new(), Err(ProblemType::NoKey)),
            (Place::Open, "authorization", format!("Bearer {one}"), Ok(Some("one"))),
            (Place::Open, "authorization", format!("bearer  {one} "), Ok(Some("one"))),
            (Place::Open, "x-api-key", one.clone(), Ok(Some("one"))),
            (Place::Open, "authorization", format!("Basic {one}"), Err(ProblemType::NoKey)),
            (Place::Open, "authorization", format!("Basic {}", STANDARD.encode(format!("any:{one}"))), Ok(Some("one"))),
            (Place::Open, "authorization", format!("Basic {}", STANDARD.encode(&one)), Err(ProblemType::NoKey)),
            (Place::Open, "authorization", "Bearer".to_owned(), Err(ProblemType::NoKey)),
            (Place::Open, "x-api-key", format!("{one}x"), Err(ProblemType::NoKey)),
            // What lies in the file opens nothing.
            (Place::Open, "x-api-key", file::hexadecimal(&first), Err(ProblemType::NoKey)),
            (Place::Admin, "x-api-key", one.clone(), Err(ProblemType::KeyForbids)),
            (Place::Admin, "x-api-key", admin.clone(), Ok(Some("boss"))),
        ] {
            let came = come(place, name, &value);
            let came = came.map(|key| key.map(|key| key.name.clone())).map_err(|problem| problem.kind());
            assert_eq!(came, admitted.map(|name| name.map(str::to_owned)), "{place:?} {name} {value}");
        }

        // A file that breaks keeps the old keys; one that is mended takes a key away.
        fs::write(&file, "{").unwrap();
        assert!(keys.reload().is_err());
        assert!(come(Place::Open, "x-api-key", &one).is_ok());
        fs::write(&file, entry("boss", second, true)).unwrap();
        keys.reload().unwrap();
        assert!(come(Place::Open, "x-api-key", &one).is_err());
        assert!(come(Place::Open, "x-api-key", &admin).is_ok());
    }

    #[test]
    fn without_keys_only_this_machine_changes_models() {
        let keys = Keys::default();
        for (address, header, admitted) in [
            ("127.0.0.1:9", "", true),
            ("[::1]:9", "", true),
            ("[::ffff:127.0.0.1]:9", "", true),
            ("10.0.0.1:9", "", false),
            // A proxy on this machine hands on what comes from anywhere.
            ("127.0.0.1:9", "x-forwarded-for", false),
        ] {
            let headers = headers(header, "10.0.0.1");
            assert_eq!(keys.admit(Place::Admin, &headers, peer(address)).is_ok(), admitted, "{address} {header}");
            assert!(keys.admit(Place::Open, &headers, peer(address)).is_ok());
        }
        assert!(keys.admit(Place::Admin, &HeaderMap::new(), None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_may_use_its_models_and_its_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.jsonl");
        let (_, digest) = generate().unwrap();
        let entry = Entry {
            models: Some(vec!["a".parse().unwrap()]),
            tokens_per_minute: Some(60),
            ..Entry::new("one".to_owned(), digest)
        };
        fs::write(&file, entry.to_string()).unwrap();
        let keys = Keys::load(file).unwrap();
        let key = || keys.0.as_ref().unwrap().current()[0].clone();
        assert_eq!(key().check(&"b".parse().unwrap()).unwrap_err().kind(), ProblemType::KeyForbids);

        let model = "a".parse().unwrap();
        key().spend(90);
        let refused = key().check(&model).unwrap_err();
        assert_eq!(refused.kind(), ProblemType::OutOfTokens);
        // Reading the file anew gives nobody more.
        keys.reload().unwrap();
        assert!(key().check(&model).is_err());
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(key().check(&model).is_ok());
    }
}
