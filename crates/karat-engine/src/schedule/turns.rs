//! Whose turn it is among the clients whose jobs wait.
//!
//! The client that was served least goes first, counted from when it came: start-time fair queueing (Goyal, Vin and
//! Cheng, 1996), with tokens as the service. However much one of them sends, the others get their share as if they were
//! alone with it. The jobs of one client have an order of their own, which nothing here looks into.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Instant,
};

use super::JobId;

/// Tells a client from others whose jobs wait. The default one is the server itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

impl ClientId {
    /// The client that is known by `name`, such as that of its key or its address.
    #[must_use]
    pub fn of(name: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The clients' jobs, and what each client was served.
#[derive(Debug, Default)]
pub(super) struct Turns {
    clients: HashMap<ClientId, Turn>,
    /// What each client that waits would have been served if all had the same, at least what the one that was chosen last had:
    /// nobody who comes later is thought to have had less.
    virtual_time: u64,
    /// How many jobs wait.
    waiting: usize,
    /// The tokens of all batches so far.
    served: u64,
    /// Whose turn the last one was, and what all had been served when it was first another's than the one before.
    last: Option<(ClientId, Option<u64>)>,
}

#[derive(Debug)]
struct Turn {
    /// The one that is due first in front.
    order: BTreeSet<(Instant, JobId)>,
    tokens: usize,
    served: u64,
}

impl Turns {
    /// A job of `tokens` tokens begins to wait.
    pub(super) fn insert(&mut self, client: ClientId, due: Instant, id: JobId, tokens: usize) {
        let served = self.virtual_time;
        let turn = self.clients.entry(client).or_insert_with(|| Turn { order: BTreeSet::new(), tokens: 0, served });
        turn.served = turn.served.max(served);
        turn.order.insert((due, id));
        turn.tokens += tokens;
        self.waiting += 1;
    }

    /// A job waits no more.
    pub(super) fn remove(&mut self, client: ClientId, due: Instant, id: JobId, tokens: usize) {
        let Some(turn) = self.clients.get_mut(&client) else { return };
        if !turn.order.remove(&(due, id)) {
            return;
        }
        turn.tokens -= tokens;
        self.waiting -= 1;
        if self.waiting == 0 {
            // The busy period is over, and with it what anybody had more of than others.
            self.virtual_time = self.clients.values().map(|turn| turn.served).max().unwrap_or(0).max(self.virtual_time);
            self.clients.clear();
        } else if self.clients.get(&client).is_some_and(|turn| self.is_even(turn)) {
            self.clients.remove(&client);
        }
    }

    /// Whether nothing need be remembered of a client: who was served more than others and comes back at once must not find
    /// that forgotten.
    fn is_even(&self, turn: &Turn) -> bool {
        turn.order.is_empty() && turn.served <= self.virtual_time
    }

    /// It is the turn of `client`, whose first job is about to run.
    pub(super) fn begin(&mut self, client: ClientId) {
        let changed = match self.last {
            None => None,
            Some((last, changed)) if last == client => changed,
            Some(_) => Some(self.served),
        };
        self.last = Some((client, changed));
        let before = self.clients.get(&client).map_or(0, |turn| turn.served);
        self.virtual_time = self.virtual_time.max(before);
    }

    /// Jobs of `client` are about to run, which have so many tokens.
    pub(super) fn serve(&mut self, client: ClientId, tokens: usize) {
        let tokens = tokens as u64;
        self.served = self.served.saturating_add(tokens);
        if let Some(turn) = self.clients.get_mut(&client) {
            turn.served = turn.served.saturating_add(tokens);
        }
    }

    /// A batch of so many tokens is about to run. Everybody's share goes on by it, lest an endless row of clients that come
    /// once keeps those away that stay.
    pub(super) fn advance(&mut self, tokens: usize) {
        let waiting = self.clients.values().filter(|turn| !turn.order.is_empty()).count().max(1) as u64;
        self.virtual_time = self.virtual_time.saturating_add(tokens as u64 / waiting);
        let now = self.virtual_time;
        self.clients.retain(|_, turn| !turn.order.is_empty() || turn.served > now);
    }

    /// Whether others than `client` wait, or had turns within the last so many tokens.
    pub(super) fn are_several(&self, client: ClientId, tokens: usize) -> bool {
        let recent = |changed: u64| self.served - changed < tokens as u64;
        let had_turns = self.last.is_some_and(|(last, changed)| last != client || changed.is_some_and(recent));
        had_turns || self.others(client).any(|turn| !turn.order.is_empty())
    }

    /// The jobs of the client whose turn it is, then those of the next, and so on. `level` gives what a client's first job
    /// goes before or behind, whatever either client was served; a client without one is left out.
    pub(super) fn jobs<L: Ord>(&self, level: impl Fn(JobId) -> Option<L>) -> impl Iterator<Item = JobId> {
        let first = |turn: &Turn| turn.order.iter().find_map(|&(_, id)| level(id));
        let mut turns: Vec<(L, u64, ClientId, &Turn)> = self
            .clients
            .iter()
            .filter_map(|(&client, turn)| first(turn).map(|level| (level, turn.served, client, turn)))
            .collect();
        turns.sort_unstable_by(|one, other| (&one.0, one.1, one.2).cmp(&(&other.0, other.1, other.2)));
        turns.into_iter().flat_map(|(.., turn)| turn.order.iter().map(|&(_, id)| id))
    }

    /// How many tokens go before the last of `own` more of `client` that is due then: those of its own that are due earlier, and
    /// of each other client as many at most as it is given itself until then. `tokens` is the length of a job.
    pub(super) fn before(&self, client: ClientId, own: usize, due: Instant, tokens: impl Fn(JobId) -> usize) -> usize {
        let before = self
            .clients
            .get(&client)
            .map_or(0, |turn| turn.order.range(..=(due, JobId::LAST)).map(|&(_, id)| tokens(id)).sum());
        before + self.shares(client, before.saturating_add(own))
    }

    /// How many tokens are to be computed before `own` more of `client` can be, at most.
    pub(super) fn ahead(&self, client: ClientId, own: usize) -> usize {
        let waiting = self.clients.get(&client).map_or(0, |turn| turn.tokens);
        waiting + self.shares(client, waiting.saturating_add(own))
    }

    /// Whether `client` has no more waiting than its part of `tokens`, shared by all who wait.
    pub(super) fn is_within_share(&self, client: ClientId, arriving: usize, tokens: usize) -> bool {
        let own = self.clients.get(&client).map_or(0, |turn| turn.tokens);
        let clients = 1 + self.others(client).filter(|turn| !turn.order.is_empty()).count();
        own.saturating_add(arriving) <= tokens / clients
    }

    /// What others are given while `client` is given `share` tokens.
    fn shares(&self, client: ClientId, share: usize) -> usize {
        self.others(client).map(|turn| turn.tokens.min(share)).sum()
    }

    fn others(&self, client: ClientId) -> impl Iterator<Item = &Turn> {
        self.clients.iter().filter(move |(other, _)| **other != client).map(|(_, turn)| turn)
    }

    #[cfg(test)]
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Everything is taken out.
    pub(super) fn clear(&mut self) {
        self.clients.clear();
        self.waiting = 0;
    }
}
