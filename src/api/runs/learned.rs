//! What running normalisations have learned, over restarts.
//!
//! A model gets back what it had learned before its first request after a restart, if it is the same version. What somebody
//! was told of a state is committed before he is told; in between it is written down every few seconds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use karat_engine::{
    engine::Engine,
    repository::{Model, ModelBody, ModelStatus},
};
use karat_rules::{
    domain::ModelName,
    transform::{Learned, Memory},
};
use karat_runs::store::{Store, StoreError};

/// A model of some version.
type Key = (ModelName, String);

/// What normalisations had learned when the server started, and what was last written down.
#[derive(Debug)]
pub(crate) struct LearnedStates {
    store: Store,
    waiting: Mutex<HashMap<Key, Vec<Learned>>>,
    any_waits: AtomicBool,
    written: Mutex<BTreeMap<Key, Vec<Learned>>>,
}

/// The links of a model that learn, its own first and then those that it lays over its members.
pub(crate) fn memories(model: &Model) -> Vec<(&str, &dyn Memory)> {
    let over = match &model.body {
        ModelBody::Graph(_) => &[][..],
        ModelBody::Composite(members) => members,
    };
    let over = over.iter().filter_map(|member| member.transforms.as_ref());
    model.transforms.memories().chain(over.flat_map(karat_rules::transform::Chain::memories)).collect()
}

fn key(model: &Model) -> Key {
    (model.name.clone(), model.version.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Entries are put in and taken out whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LearnedStates {
    pub(super) fn open(store: Store) -> Result<Self, StoreError> {
        let found: HashMap<Key, Vec<Learned>> = store.all_learned()?.into_iter().collect();
        let any_waits = AtomicBool::new(!found.is_empty());
        Ok(Self { store, waiting: Mutex::new(found), any_waits, written: Mutex::default() })
    }

    /// Gives a model and those that it is made of back what they had learned, once.
    pub(super) fn restore(&self, engine: &Engine, model: &ModelName) {
        if self.any_waits.load(Ordering::Acquire)
            && let Ok(model) = engine.model(model)
        {
            self.restore_model(&model);
        }
    }

    fn restore_model(&self, model: &Model) {
        let mut waiting = lock(&self.waiting);
        self.give_back(&mut waiting, model);
        self.any_waits.store(!waiting.is_empty(), Ordering::Release);
    }

    fn give_back(&self, waiting: &mut HashMap<Key, Vec<Learned>>, model: &Model) {
        if let ModelBody::Composite(members) = &model.body {
            members.iter().for_each(|member| self.give_back(waiting, &member.model));
        }
        let Some(states) = waiting.remove(&key(model)) else { return };
        for ((name, memory), state) in memories(model).into_iter().zip(states) {
            match memory.replace(state) {
                Ok(()) => {
                    tracing::info!(model = %model.name, link = name, count = state.count, "goes on with what it learned");
                }
                Err(error) => {
                    tracing::warn!(model = %model.name, link = name, error, "what it had learned is no state");
                }
            }
        }
    }

    /// What a model has learned, committed.
    pub(crate) async fn keep(&self, model: &Model) -> Result<Vec<Learned>, StoreError> {
        self.restore_model(model);
        let learned: Vec<Learned> = memories(model).iter().map(|(_, memory)| memory.learned()).collect();
        let key = key(model);
        self.store.keep_learned(key.0.clone(), key.1.clone(), learned.clone()).await?;
        lock(&self.written).insert(key, learned.clone());
        Ok(learned)
    }

    /// Writes down what any model learned since this was last done.
    pub(super) async fn keep_all(&self, engine: &Engine) -> Result<(), StoreError> {
        for listed in engine.repository().models().values() {
            let ModelStatus::Ready(model) = &listed.status else { continue };
            let learned: Vec<Learned> = memories(model).iter().map(|(_, memory)| memory.learned()).collect();
            if !learned.is_empty() && lock(&self.written).get(&key(model)) != Some(&learned) {
                self.keep(model).await?;
            }
        }
        Ok(())
    }
}
