//! One request from its arrival to its reply: who sent it, and what became of it.
//!
//! Every call of the engine that costs something goes through here, so that keys hold on every route and each request can
//! be told of in one line. Texts are never part of it.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use aide::OperationInput;
use axum::extract::FromRequestParts;
use http::{Extensions, request::Parts};
use karat_engine::engine::{CritiqueRequest, Critiques, Embeddings, ScoreReport, ScoreRequest, Timings};
use karat_engine::schedule::ClientId;
use karat_rules::domain::ModelName;

use super::{AppState, keys::Key, problem::Problem};
use crate::telemetry::Work;

/// What is known of a request. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Visit(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    key: OnceLock<Arc<Key>>,
    address: OnceLock<IpAddr>,
    work: Mutex<Vec<Work>>,
}

impl Visit {
    /// The request came with that key.
    pub(super) fn come_with(&self, key: Arc<Key>) {
        // A request is let in once.
        let _ = self.0.key.set(key);
    }

    /// The request came from that address.
    pub(super) fn come_from(&self, address: IpAddr) {
        let _ = self.0.address.set(address.to_canonical());
    }

    /// Whose turn it is when the request's is: its key's, or else that of the address that it came from. What is said to
    /// have been handed on is no other client, since anybody can say that.
    fn client(&self) -> ClientId {
        match (self.0.key.get(), self.0.address.get()) {
            (Some(key), _) => ClientId::of(&key.name),
            (None, Some(address)) => ClientId::of(&network(*address)),
            (None, None) => ClientId::default(),
        }
    }

    /// The name of the key that the request came with.
    pub(super) fn key_name(&self) -> Option<&str> {
        self.0.key.get().map(|key| key.name.as_str())
    }

    /// Whether it may see and change what was made with the key of that name: a server without keys, and what was made
    /// without one, are everybody's.
    pub(super) fn may_use(&self, owner: Option<&str>) -> bool {
        match (self.0.key.get(), owner) {
            (Some(key), Some(owner)) => key.owns(owner),
            _ => true,
        }
    }

    /// What the engine did for it so far.
    pub(super) fn work(&self) -> Vec<Work> {
        self.lock().clone()
    }

    /// Counts tokens that were generated for it.
    pub(super) fn spend(&self, tokens: usize) {
        if let Some(key) = self.0.key.get() {
            key.spend(tokens);
        }
    }

    /// A visit of the same client, for what is done when this one was answered.
    pub(super) fn later(&self) -> Self {
        let later = Self::default();
        if let Some(address) = self.0.address.get() {
            later.come_from(*address);
        }
        if let Some(key) = self.0.key.get() {
            later.come_with(Arc::clone(key));
        }
        later
    }

    fn check(&self, model: &ModelName) -> Result<(), Problem> {
        self.0.key.get().map_or(Ok(()), |key| key.check(model))
    }

    fn done(&self, work: Work) {
        self.spend(work.tokens);
        self.lock().push(work);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Work>> {
        self.0.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a handler that reads no body and has to know whose request it answers.
pub(super) struct Visited(pub(super) AppState);

impl FromRequestParts<AppState> for Visited {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(Self(state.visited_by(&parts.extensions)))
    }
}

impl OperationInput for Visited {}

/// What one client has of addresses: one of IPv4, a network of 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
    }
}

impl AppState {
    /// The state of a request's handler, which knows whose it is.
    pub(super) fn visited_by(&self, extensions: &Extensions) -> Self {
        let visit = extensions.get::<Visit>().cloned().unwrap_or_default();
        self.on_behalf_of(visit)
    }

    /// The same, for a visit.
    pub(super) fn on_behalf_of(&self, visit: Visit) -> Self {
        Self { visit, ..self.clone() }
    }

    /// Scores, as far as the request's key lets it. Handlers call `score`, which heeds the request's run as well.
    pub(super) async fn score_as_allowed(&self, request: ScoreRequest) -> Result<ScoreReport, Problem> {
        self.score_let_in(self.let_in(request)?).await
    }

    /// Scores a request that was let in.
    pub(super) async fn score_let_in(&self, request: ScoreRequest) -> Result<ScoreReport, Problem> {
        let begun = Instant::now();
        let report = self.engine.score(request).await?;
        self.metrics.scored(&report);
        self.visit.done(Work {
            model: report.model.clone(),
            version: report.version.clone(),
            tokens: report.usage.tokens,
            begun,
            timings: report.timings,
            passes: report.passes.clone(),
        });
        Ok(report)
    }

    /// Embeds, as far as the request's key lets it.
    pub(super) async fn embed(&self, request: ScoreRequest) -> Result<Embeddings, Problem> {
        let request = self.let_in(request)?;
        let begun = Instant::now();
        let embeddings = self.engine.embed(request).await?;
        self.visit.done(Work {
            model: embeddings.model.clone(),
            version: embeddings.version.clone(),
            tokens: embeddings.usage.tokens,
            begun,
            timings: embeddings.timings,
            passes: embeddings.passes.clone(),
        });
        Ok(embeddings)
    }

    /// Begins to write critiques, as far as the request's key lets it. What is written is counted as it is written.
    pub(super) async fn critique(&self, request: CritiqueRequest) -> Result<Critiques, Problem> {
        self.visit.check(&request.model)?;
        let begun = Instant::now();
        let critiques = self.engine.critique(request).await?;
        let model = critiques.model();
        self.visit.done(Work {
            model: model.name.clone(),
            version: model.version.clone(),
            tokens: critiques.prompt_tokens(),
            begun,
            timings: Timings { total: begun.elapsed(), ..Timings::default() },
            passes: Vec::new(),
        });
        Ok(critiques)
    }

    /// The request as its key lets it be.
    ///
    /// # Errors
    /// When the key may not use the model, or has no tokens left.
    pub(super) fn let_in(&self, request: ScoreRequest) -> Result<ScoreRequest, Problem> {
        self.visit.check(request.model())?;
        let request = request.of_client(self.visit.client());
        Ok(match self.visit.0.key.get() {
            Some(key) => request.at_most(key.priority),
            None => request,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> ClientId {
        let visit = Visit::default();
        visit.come_from(address.parse().unwrap());
        assert_eq!(visit.later().client(), visit.client(), "what is done later is the same client's");
        visit.client()
    }

    #[test]
    fn without_keys_a_client_is_an_address_or_a_network() {
        assert_eq!(from("10.0.0.1"), from("::ffff:10.0.0.1"));
        assert_ne!(from("10.0.0.1"), from("10.0.0.2"));
        assert_eq!(from("2001:db8::1"), from("2001:db8::ffff:2"), "one host has all of a network's addresses");
        assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
        assert_eq!(Visit::default().client(), ClientId::default(), "the server's own");
    }
}
