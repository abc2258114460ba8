//! Scores that are known or on their way: no input is computed twice, whoever sent it.
//!
//! A score is kept under the graph and the exact token ids, so that neither a hash collision nor a reloaded model can
//! return another input's score. What is being computed is shared (single flight): a second request for the same input
//! waits for the same forward pass, and the pass is abandoned only when nobody waits any more.

use std::{
    collections::HashMap,
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use karat_rules::{
    domain::{ModelName, TokenizedInput},
    head::{HeadError, HeadOutput},
};

use super::{ScoreError, request::Limits};
use crate::{
    repository::{GraphId, GraphModel, GraphUnit},
    schedule::{Job, JobError, Ticket},
};

/// What a score is kept under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    graph: GraphId,
    input: Arc<TokenizedInput>,
}

/// A score with what it cost.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    pub(super) output: Arc<HeadOutput>,
    /// Whether it needed no forward pass of its own.
    pub(super) cached: bool,
    pub(super) queued: Duration,
    pub(super) running: Duration,
}

/// Why a score on its way did not arrive; shared by all who wait for it.
#[derive(Debug, Clone)]
pub(super) enum FlightError {
    Job(JobError),
    Head(HeadError),
}

type Landing = Result<Scored, FlightError>;
type Flight = Shared<BoxFuture<'static, Landing>>;

struct InFlight {
    flight: WeakShared<BoxFuture<'static, Landing>>,
    number: u64,
    limits: Limits,
}

/// A score that is known, or that will be.
#[derive(Debug)]
pub(super) enum Pending {
    Known(Arc<HeadOutput>),
    Flying { flight: Flight, shared: bool },
}

impl Pending {
    /// Waits for the score; `model` is named in errors.
    pub(super) async fn wait(self, model: &ModelName) -> Result<Scored, ScoreError> {
        match self {
            Self::Known(output) => Ok(Scored { output, cached: true, queued: Duration::ZERO, running: Duration::ZERO }),
            Self::Flying { flight, shared } => match flight.await {
                Ok(scored) => Ok(Scored { cached: shared, ..scored }),
                Err(FlightError::Head(source)) => Err(ScoreError::Head { model: model.clone(), source }),
                Err(FlightError::Job(JobError::Expired)) => Err(ScoreError::Expired),
                Err(FlightError::Job(JobError::Stopped)) => Err(ScoreError::Stopped),
                Err(FlightError::Job(JobError::Runtime(source))) => {
                    Err(ScoreError::Runtime { model: model.clone(), source })
                }
                Err(FlightError::Job(JobError::Panicked)) => Err(ScoreError::Panicked),
            },
        }
    }
}

/// The scores of every graph of the process, bounded in bytes.
#[derive(Debug, Clone)]
pub(super) struct ScoreCache {
    known: moka::sync::Cache<Key, Arc<HeadOutput>>,
    flying: Arc<Mutex<Flights>>,
}

#[derive(Default)]
struct Flights {
    by_key: HashMap<Key, InFlight>,
    launched: u64,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").field("count", &self.by_key.len()).finish()
    }
}

impl ScoreCache {
    /// A cache of at most `bytes`; 0 keeps nothing but still shares what is on its way.
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |key: &Key, output: &Arc<HeadOutput>| {
            u32::try_from(key.input.bytes() + size_of::<Key>() + output.bytes()).unwrap_or(u32::MAX)
        };
        let known = moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build();
        Self { known, flying: Arc::default() }
    }

    /// The memory that known scores take.
    pub(super) fn bytes(&self) -> u64 {
        self.known.run_pending_tasks();
        self.known.weighted_size()
    }

    /// Finds or starts the scores of `inputs` by one graph; what must be computed is admitted together or not at all.
    pub(super) fn begin(
        &self,
        model: &Arc<GraphModel>,
        unit: &GraphUnit,
        inputs: &[Arc<TokenizedInput>],
        limits: Limits,
    ) -> Result<Vec<Pending>, ScoreError> {
        // Declared before the lock is taken, so that what it joined is let go after the lock.
        let mut pending = Vec::with_capacity(inputs.len());
        // Held from the look-up to the launch, so that two requests can't both find nothing and both start a pass.
        let mut flights = self.lock();
        let mut missing: Vec<Key> = Vec::new();
        let mut position_of: HashMap<Key, usize> = HashMap::new();
        for input in inputs {
            let key = Key { graph: unit.id, input: Arc::clone(input) };
            pending.push(if let Some(output) = self.known.get(&key) {
                Found::Known(output)
            } else if let Some(flight) = flights.join(&key, limits) {
                Found::Flying(flight)
            } else if let Some(position) = position_of.get(&key) {
                Found::Missing { position: *position, first: false }
            } else {
                position_of.insert(key.clone(), missing.len());
                missing.push(key);
                Found::Missing { position: missing.len() - 1, first: true }
            });
        }

        let jobs = missing.iter().map(|key| Job {
            input: Arc::clone(&key.input),
            priority: limits.priority,
            deadline: limits.deadline,
            admission: limits.admission,
        });
        let tickets = match unit.scheduler.submit(jobs.collect()) {
            Ok(tickets) => tickets,
            Err(refusal) => {
                // A joined flight may lose its last passenger here, and takes itself off the list when it does.
                drop(flights);
                return Err(refusal.into());
            }
        };
        let launched: Vec<Flight> = missing
            .into_iter()
            .zip(tickets)
            .map(|(key, ticket)| self.launch(&mut flights, Arc::clone(model), key, ticket, limits))
            .collect();
        drop(flights);

        for found in &pending {
            match found {
                Found::Missing { first: true, .. } => model.metrics.cache_miss(),
                _ => model.metrics.cache_hit(),
            }
        }
        let shared = |found| match found {
            Found::Known(output) => Pending::Known(output),
            Found::Flying(flight) => Pending::Flying { flight, shared: true },
            Found::Missing { position, first } => {
                Pending::Flying { flight: launched[position].clone(), shared: !first }
            }
        };
        Ok(pending.into_iter().map(shared).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Flights> {
        // A panic between two map operations leaves at worst a flight that nobody can join.
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(
        &self,
        flights: &mut Flights,
        model: Arc<GraphModel>,
        key: Key,
        ticket: Ticket,
        limits: Limits,
    ) -> Flight {
        flights.launched += 1;
        let number = flights.launched;
        let landing = Landed { cache: self.clone(), key: key.clone(), number };
        let flight = async move {
            let landing = landing;
            let completed = ticket.await.map_err(FlightError::Job)?;
            let output = model.head.read(&landing.key.input, &completed.rows).map_err(FlightError::Head)?;
            let output = Arc::new(output);
            landing.cache.known.insert(landing.key.clone(), Arc::clone(&output));
            Ok(Scored { output, cached: false, queued: completed.queued, running: completed.running })
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            flights.by_key.insert(key, InFlight { flight: weak, number, limits });
        }
        flight
    }
}

enum Found {
    Known(Arc<HeadOutput>),
    Flying(Flight),
    Missing { position: usize, first: bool },
}

impl Flights {
    /// The flight for `key`, unless it may give up before `ours` do or stands behind jobs that `ours` go before.
    fn join(&self, key: &Key, ours: Limits) -> Option<Flight> {
        let found = self.by_key.get(key)?;
        let patient = match (found.limits.deadline, ours.deadline) {
            (None, _) => true,
            (Some(theirs), Some(ours)) => theirs >= ours,
            (Some(_), None) => false,
        };
        if patient && found.limits.priority >= ours.priority { found.flight.upgrade() } else { None }
    }
}

/// Takes a flight off the list when it lands, fails or is abandoned.
struct Landed {
    cache: ScoreCache,
    key: Key,
    number: u64,
}

impl Drop for Landed {
    fn drop(&mut self) {
        let mut flights = self.cache.lock();
        // A later flight of the same input may have taken the place already.
        if flights.by_key.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            flights.by_key.remove(&self.key);
        }
    }
}
