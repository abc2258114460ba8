//! Memory of weights that a graph's sessions can spare once all of them run.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
};

use super::Graph;
use crate::ProviderKind;

/// A session that is tried: gives numbers, bit for bit what it computes, or none where it can't. It borrows the session, so
/// that nothing else runs on that meanwhile.
pub type SessionTrial<'a> = Box<dyn FnMut() -> Option<Vec<u32>> + Send + 'a>;

/// Tells whether some session of a graph gave these numbers while its weights were whole.
pub type KnownNumbers<'a> = &'a dyn Fn(&[u32]) -> bool;

impl Graph {
    /// Gives memory back that sessions on the processor don't read any more, now that all of them run; no other can start
    /// afterwards. `sessions` try all of them, each its own: what they give must stay the same while that memory is spoilt.
    /// If it doesn't, or there is a session that isn't among them, everything stays.
    ///
    /// Where something is `known` of what sessions of the graph give with whole weights, they needn't be asked for it as long
    /// as it says yes to what all of them give with spoilt ones: no spoilt weight gives the right numbers. Otherwise they
    /// are asked, and what each gave is returned.
    pub fn give_back_weights(
        &self,
        sessions: &mut [SessionTrial<'_>],
        known: Option<KnownNumbers<'_>>,
    ) -> Option<Vec<Vec<u32>>> {
        // One that nobody took over would keep what it has.
        drop(self.opening.lock().unwrap_or_else(PoisonError::into_inner).take());
        let lent = self.source.weights.lent().filter(|_| self.provider() == ProviderKind::Cpu);
        let lent = lent.filter(|lent| lent.packs() && !self.is_shared.load(Ordering::Relaxed))?;
        let there = Arc::strong_count(&self.leases) - 1;
        if there != sessions.len() {
            tracing::debug!(there, tried = sessions.len(), "not all sessions are tried: nothing is given back");
            return None;
        }
        // Copies are made meanwhile, of one graph at a time, lest those of several don't fit.
        let copies = || self.source.library.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known {
            let _copies = copies();
            if lent.give_back(|| numbers(sessions).is_some_and(|now| now.iter().all(|now| known(now)))) {
                return None;
            }
        }
        let before = numbers(sessions)?;
        let _copies = copies();
        lent.give_back(|| numbers(sessions).is_some_and(|now| now == before));
        Some(before)
    }
}

/// What each session gives, all of them side by side.
fn numbers(sessions: &mut [SessionTrial<'_>]) -> Option<Vec<Vec<u32>>> {
    thread::scope(|scope| {
        let running: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(session)).collect();
        running.into_iter().map(|session| session.join().ok().flatten()).collect()
    })
}
