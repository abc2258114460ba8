//! Paths that several dialects want, or a dialect and karat itself.
//!
//! Under a dialect's prefix a path is that dialect's. Without a prefix the body's own words decide: each dialect
//! [claims](Claim) bodies by their fields, and whoever has the path answers the others. `/v1/rerank` and `/v2/rerank`
//! have bodies of one shape in three dialects: without a prefix they are vLLM's, whose answer holds what clients of the
//! two others read.
//!
//! Nearly all bodies hold none of the words of a claim, and are parsed once, by whoever has the path. One that holds some
//! is parsed into its fields, from which it is claimed and read.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use aho_corasick::AhoCorasick;
use aide::{OperationInput, OperationOutput, operation::OperationHandler};
use axum::{
    extract::Request,
    handler::Handler,
    response::Response,
    routing::{MethodRouter, post},
};

use super::{
    TABLE,
    dialect::{Claim, Dialect, Route},
    routes::{expected, speaking},
};
use crate::api::{
    AppState,
    body::{self, Fields, Received},
};

/// The handler of a path, with the dialects that claim some of the bodies which are sent there.
#[derive(Clone)]
pub(in crate::api) struct SharedPath<H> {
    claimants: Arc<Claimants>,
    own: H,
}

/// The routes that claim bodies of one path.
struct Claimants {
    each: Vec<Claimant>,
    /// Looks for the words of all of them at once.
    words: Option<AhoCorasick>,
}

/// A route that claims bodies.
struct Claimant {
    claim: Claim,
    /// The names that claim, as JSON has them.
    words: Vec<String>,
    dialect: &'static Dialect,
    route: &'static Route,
    /// Made for the first body: making it earlier would describe the route before the path's owner.
    method: OnceLock<MethodRouter<AppState>>,
}

impl<H> SharedPath<H> {
    pub(in crate::api) fn new(path: &str, own: H) -> Self {
        let routes = expected(TABLE.into_iter()).filter(|(_, route)| route.path == path);
        let claimants = routes.filter_map(|(dialect, route)| Claimant::new(dialect, route));
        Self { claimants: Arc::new(Claimants::new(claimants.collect())), own }
    }
}

/// What a path's owner answers, unless a dialect claims the body.
pub(super) fn share(path: &str, own: MethodRouter<AppState>) -> MethodRouter<AppState> {
    let shared = SharedPath::new(path, own);
    if shared.claimants.each.is_empty() { shared.own } else { post(shared) }
}

impl<T, H: Handler<T, AppState>> Handler<T, AppState> for SharedPath<H> {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, mut request: Request, state: AppState) -> Self::Future {
        Box::pin(async move {
            let claimed = match body::receive(&mut request, &state).await {
                Ok(body) => {
                    let (claimants, length) = (Arc::clone(&self.claimants), body.len());
                    state.large_bodies.read(length, move || claimants.claim(body)).await
                }
                Err(problem) => Err(problem),
            };
            let (claimant, received) = match claimed {
                Ok((claimant, body)) => (claimant.map(|at| &self.claimants.each[at]), Ok(body)),
                Err(problem) => (None, Err(problem)),
            };
            Received::leave(received, &mut request);
            match claimant {
                Some(claimant) => claimant.method().call(request, state).await,
                None => self.own.call(request, state).await,
            }
        })
    }
}

impl<I: OperationInput, O: OperationOutput, H: OperationHandler<I, O>> OperationHandler<I, O> for SharedPath<H> {}

impl Claimants {
    fn new(each: Vec<Claimant>) -> Self {
        let words = AhoCorasick::new(each.iter().flat_map(|claimant| &claimant.words));
        // A few short words are never too many; if they were, every body would be parsed.
        Self { words: words.ok(), each }
    }

    /// Which of them claims a body, and the body, to be read from its fields where it has some.
    fn claim(&self, body: Received) -> (Option<usize>, Received) {
        if self.words.as_ref().is_some_and(|words| !words.is_match(body.bytes())) {
            return (None, body);
        }
        let Some(text) = body.text() else { return (None, body) };
        match body.parse::<Fields>() {
            Ok(fields) => match self.each.iter().position(|claimant| claimant.claim.holds(&fields)) {
                Some(claimant) => (Some(claimant), body.in_fields(fields)),
                None => (None, body),
            },
            // Whose broken body it is decides how that is told.
            Err(_) => (self.each.iter().position(|claimant| claimant.seems_to_claim(text)), body),
        }
    }
}

impl Claimant {
    fn new(dialect: &'static Dialect, route: &'static Route) -> Option<Self> {
        let claim = route.claim?;
        let words = claim.any_of.iter().map(|word| quoted(word)).collect();
        Some(Self { claim, words, dialect, route, method: OnceLock::new() })
    }

    /// Whether the text looks like a body that is claimed, as far as that can be said of what is no JSON.
    fn seems_to_claim(&self, text: &str) -> bool {
        self.words.iter().any(|word| text.contains(word))
            && !self.claim.none_of.iter().any(|word| text.contains(&quoted(word)))
    }

    fn method(&self) -> MethodRouter<AppState> {
        self.method.get_or_init(|| speaking(self.dialect, self.route).into()).clone()
    }
}

fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}

impl Claim {
    fn holds(self, fields: &Fields) -> bool {
        self.any_of.iter().any(|name| fields.has(name)) && !self.none_of.iter().any(|name| fields.has(name))
    }
}
