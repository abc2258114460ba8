//! Values that are known or on their way: none is computed twice, whoever asks for it.
//!
//! [`SingleFlight`] knows neither what a value is nor how it comes about: it is told how to start what is missing. A
//! second request for the same key waits for the same computation, which is dropped, and so abandoned, only when
//! nobody waits for it any more. Values are kept under their whole keys, so that no hash collision can return another
//! one's.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ahash::RandomState;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use super::request::Urgency;

type Computation<V, E> = Shared<BoxFuture<'static, Result<V, E>>>;

/// The values of all keys, bounded in bytes, and the computations that are in flight. Clones share both.
pub(super) struct SingleFlight<K, V, E> {
    known: moka::sync::Cache<K, V, RandomState>,
    in_flight: Arc<Mutex<InFlight<K, V, E>>>,
}

struct InFlight<K, V, E> {
    by_key: HashMap<K, Entry<V, E>>,
    started: u64,
}

struct Entry<V, E> {
    computation: WeakShared<BoxFuture<'static, Result<V, E>>>,
    number: u64,
    urgency: Urgency,
}

/// A value that is known, or that will be.
pub(super) struct Pending<V, E> {
    source: Source,
    value: Value<V, E>,
}

enum Value<V, E> {
    Known(V),
    Computing(Computation<V, E>),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It was known.
    Known,
    /// Somebody else's computation, or an earlier one of the same request.
    Shared,
    /// A computation that was started for it.
    Started,
}

impl<V: Clone, E: Clone> Pending<V, E> {
    fn known(value: V) -> Self {
        Self { source: Source::Known, value: Value::Known(value) }
    }

    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// What the computation failed with, for all who wait for it.
    pub(super) async fn wait(self) -> Result<V, E> {
        match self.value {
            Value::Known(value) => Ok(value),
            Value::Computing(computation) => computation.await,
        }
    }
}

impl<K, V, E> SingleFlight<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// A map of at most `bytes`, as `weigh` counts those of an entry; 0 keeps nothing but still shares what is in flight.
    pub(super) fn new(bytes: u64, weigh: fn(&K, &V) -> usize) -> Self {
        let weigh = move |key: &K, value: &V| u32::try_from(weigh(key, value)).unwrap_or(u32::MAX);
        let known = moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh);
        let known = known.build_with_hasher(RandomState::new());
        let in_flight = InFlight { by_key: HashMap::new(), started: 0 };
        Self { known, in_flight: Arc::new(Mutex::new(in_flight)) }
    }

    /// Whether values are kept at all.
    pub(super) fn keeps(&self) -> bool {
        self.known.policy().max_capacity() != Some(0)
    }

    /// The memory that known values take.
    pub(super) fn bytes(&self) -> u64 {
        self.known.run_pending_tasks();
        self.known.weighted_size()
    }

    /// Whether a value is known.
    pub(super) fn knows(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// Finds the values of `keys`, or has all that are missing started together or not at all: one [`Pending`] a key.
    ///
    /// `start` gets the missing keys, each once, and gives one future for each, in their order. It is asked also where
    /// nothing is missing, so that who takes no more requests can say so.
    ///
    /// # Errors
    /// What `start` refuses with; then nothing was started.
    pub(super) fn begin<F, R>(
        &self,
        keys: impl Iterator<Item = K>,
        urgency: Urgency,
        start: impl FnOnce(&[K]) -> Result<Vec<F>, R>,
    ) -> Result<Vec<Pending<V, E>>, R>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut missing: Vec<K> = Vec::new();
        let most = keys.size_hint().1.unwrap_or(0);
        let mut pending: Vec<Pending<V, E>> = Vec::with_capacity(most);
        // What is known needs no lock.
        let mut keys = keys.peekable();
        while let Some(value) = keys.peek().and_then(|key| self.known.get(key)) {
            pending.push(Pending::known(value));
            keys.next();
        }
        if keys.peek().is_none() {
            start(&missing)?;
            return Ok(pending);
        }
        // Declared before the lock is taken, so that what was joined is dropped after the lock is released.
        let mut found = Vec::with_capacity(most.saturating_sub(pending.len()));
        // Held from the look-up to the start, so that two requests can't both find nothing and both start.
        let mut in_flight = self.lock();
        let mut position_of: HashMap<K, usize> = HashMap::new();
        for key in keys {
            found.push(if let Some(value) = self.known.get(&key) {
                Found::Known(value)
            } else if let Some(computation) = in_flight.join(&key, urgency) {
                Found::InFlight(computation)
            } else if let Some(position) = position_of.get(&key) {
                Found::Missing { position: *position, first: false }
            } else {
                position_of.insert(key.clone(), missing.len());
                missing.push(key);
                Found::Missing { position: missing.len() - 1, first: true }
            });
        }
        let futures = match start(&missing) {
            Ok(futures) => futures,
            Err(refusal) => {
                // What was joined may be dropped by its last reader here, and takes itself off the map when it is.
                drop(in_flight);
                return Err(refusal);
            }
        };
        let started: Vec<_> = missing
            .into_iter()
            .zip(futures)
            .map(|(key, future)| self.launch(&mut in_flight, key, future, urgency))
            .collect();
        drop(in_flight);

        pending.extend(found.into_iter().map(|found| match found {
            Found::Known(value) => Pending::known(value),
            Found::InFlight(computation) => Pending { source: Source::Shared, value: Value::Computing(computation) },
            Found::Missing { position, first } => Pending {
                source: if first { Source::Started } else { Source::Shared },
                value: Value::Computing(started[position].clone()),
            },
        }));
        Ok(pending)
    }

    fn launch(
        &self,
        in_flight: &mut InFlight<K, V, E>,
        key: K,
        future: impl Future<Output = Result<V, E>> + Send + 'static,
        urgency: Urgency,
    ) -> Computation<V, E> {
        in_flight.started += 1;
        let number = in_flight.started;
        let entry = RemoveOnDrop { map: self.clone(), key: key.clone(), number };
        let computation = async move {
            // Moved in, so that it goes with the future, whether that ends or is dropped.
            let entry = entry;
            let value = future.await?;
            entry.map.known.insert(entry.key.clone(), value.clone());
            Ok(value)
        }
        .boxed()
        .shared();
        if let Some(weak) = computation.downgrade() {
            in_flight.by_key.insert(key, Entry { computation: weak, number, urgency });
        }
        computation
    }
}

impl<K, V, E> SingleFlight<K, V, E> {
    fn lock(&self) -> MutexGuard<'_, InFlight<K, V, E>> {
        // A panic between two map operations leaves at worst a computation that nobody can join.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found<V, E> {
    Known(V),
    InFlight(Computation<V, E>),
    Missing { position: usize, first: bool },
}

impl<K: Eq + Hash, V: Clone, E: Clone> InFlight<K, V, E> {
    /// The computation for `key`, unless it may give up before `ours` does, stands behind jobs that `ours` goes before, or
    /// waits for another client's turn.
    fn join(&self, key: &K, ours: Urgency) -> Option<Computation<V, E>> {
        let found = self.by_key.get(key)?;
        let patient = match (found.urgency.deadline, ours.deadline) {
            (None, _) => true,
            (Some(theirs), Some(ours)) => theirs >= ours,
            (Some(_), None) => false,
        };
        let as_soon = found.urgency.client == ours.client && found.urgency.priority >= ours.priority;
        if patient && as_soon { found.computation.upgrade() } else { None }
    }
}

/// Takes a computation off the map when it ends or is abandoned.
struct RemoveOnDrop<K: Eq + Hash, V, E> {
    map: SingleFlight<K, V, E>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V, E> Drop for RemoveOnDrop<K, V, E> {
    fn drop(&mut self) {
        let mut in_flight = self.map.lock();
        // A later computation of the same key may have taken the place already.
        if in_flight.by_key.get(&self.key).is_some_and(|entry| entry.number == self.number) {
            in_flight.by_key.remove(&self.key);
        }
    }
}

impl<K, V, E> Clone for SingleFlight<K, V, E> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), in_flight: Arc::clone(&self.in_flight) }
    }
}

impl<K, V, E> fmt::Debug for SingleFlight<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("in_flight", &self.lock().by_key.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        time::{Duration, Instant},
    };

    use futures_executor::block_on;
    use tokio::sync::oneshot;

    use super::*;
    use crate::schedule::Priority;

    type Map = SingleFlight<u32, u32, &'static str>;

    fn map() -> Map {
        SingleFlight::new(1 << 10, |_, _| 1)
    }

    /// Begins `keys`; each missing one is the ten-fold of its key. Gives what was missing beside what is pending.
    fn begin(map: &Map, keys: &[u32], urgency: Urgency) -> (Vec<Pending<u32, &'static str>>, Vec<u32>) {
        let mut missing = Vec::new();
        let pending = map.begin(keys.iter().copied(), urgency, |keys| {
            missing = keys.to_vec();
            Ok::<_, Infallible>(keys.iter().map(|key| std::future::ready(Ok(key * 10))).collect())
        });
        (pending.unwrap(), missing)
    }

    fn sources(pending: &[Pending<u32, &'static str>]) -> Vec<Source> {
        pending.iter().map(Pending::source).collect()
    }

    #[test]
    fn each_key_is_started_once_and_known_afterwards() {
        let map = map();
        let (pending, missing) = begin(&map, &[1, 2, 1], Urgency::default());
        assert_eq!(missing, [1, 2]);
        assert_eq!(sources(&pending), [Source::Started, Source::Started, Source::Shared]);
        let (joined, missing) = begin(&map, &[2, 3], Urgency::default());
        assert_eq!((missing, sources(&joined)), (vec![3], vec![Source::Shared, Source::Started]));
        for (pending, value) in pending.into_iter().chain(joined).zip([10, 20, 10, 20, 30]) {
            assert_eq!(block_on(pending.wait()), Ok(value));
        }
        assert_eq!(sources(&begin(&map, &[3], Urgency::default()).0), [Source::Known]);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_dropped_and_started_anew() {
        let map = map();
        let (sender, receiver) = oneshot::channel::<u32>();
        let start = |_: &[u32]| Ok::<_, Infallible>(vec![async { receiver.await.map_err(|_| "lost") }]);
        let pending = map.begin([1].into_iter(), Urgency::default(), start).unwrap();
        assert!(begin(&map, &[1], Urgency::default()).1.is_empty());
        assert!(!sender.is_closed(), "one of two still waits");
        drop(pending);
        assert!(sender.is_closed());
        assert_eq!(begin(&map, &[1], Urgency::default()).1, [1]);
    }

    #[test]
    fn a_failure_is_told_to_all_who_wait_and_not_kept() {
        let map = map();
        let start = |_: &[u32]| Ok::<_, Infallible>(vec![std::future::ready(Err("broken"))]);
        let pending = map.begin([1, 1].into_iter(), Urgency::default(), start).unwrap();
        for pending in pending {
            assert_eq!(block_on(pending.wait()), Err("broken"));
        }
        assert_eq!(begin(&map, &[1], Urgency::default()).1, [1]);
    }

    #[test]
    fn what_is_known_stands_among_what_is_not() {
        let map = map();
        let (known, _) = begin(&map, &[1, 2], Urgency::default());
        for pending in known {
            block_on(pending.wait()).unwrap();
        }
        let (pending, missing) = begin(&map, &[1, 7, 2, 8, 7], Urgency::default());
        assert_eq!(missing, [7, 8]);
        assert_eq!(sources(&pending), [Source::Known, Source::Started, Source::Known, Source::Started, Source::Shared]);
        let values: Vec<_> = pending.into_iter().map(|pending| block_on(pending.wait()).unwrap()).collect();
        assert_eq!(values, [10, 70, 20, 80, 70]);
        let refuse = |_: &[u32]| Err::<Vec<std::future::Ready<Result<u32, &str>>>, _>("stopped");
        let refused = map.begin([1, 2].into_iter(), Urgency::default(), refuse);
        assert_eq!(refused.err(), Some("stopped"), "also where all is known");
    }

    #[test]
    fn a_refusal_starts_nothing() {
        let map = map();
        let refuse = |_: &[u32]| Err::<Vec<std::future::Ready<Result<u32, &str>>>, _>("full");
        assert_eq!(map.begin([1].into_iter(), Urgency::default(), refuse).err(), Some("full"));
        assert_eq!(begin(&map, &[1], Urgency::default()).1, [1]);
    }

    #[test]
    fn nobody_joins_what_may_give_up_sooner_or_comes_later() {
        let now = Instant::now();
        let at = |seconds| Urgency { deadline: Some(now + Duration::from_secs(seconds)), ..Urgency::default() };
        let of = |priority| Urgency { priority, ..Urgency::default() };
        for (theirs, ours, joins) in [
            (at(10), at(5), true),
            (at(5), at(10), false),
            (at(5), Urgency::default(), false),
            (Urgency::default(), at(5), true),
            (of(Priority::High), of(Priority::Low), true),
            (of(Priority::Low), of(Priority::Normal), false),
        ] {
            let map = map();
            let (_theirs, _) = begin(&map, &[1], theirs);
            assert_eq!(begin(&map, &[1], ours).1.is_empty(), joins, "{theirs:?} {ours:?}");
        }
    }
}
