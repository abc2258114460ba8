//! An executor without a graph, for tests of everything above the runtime.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use karat_rules::domain::RowTensor;

use super::{Cancellation, Executor, RuntimeError, Shapes, SharedDevice, TokenBatch};

/// A score that depends on every token id and its place, as a stand-in for a model's logit.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a test score needs no precision beyond f32")]
pub fn score(ids: &[u32]) -> f32 {
    let hash = ids.iter().fold(17_u64, |hash, &id| (hash * 31 + u64::from(id) + 1) % 1_000_003);
    hash as f32 / 1000.0
}

/// Controls fake executors and sees what they ran. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct FakeControl {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    /// Passes that wait at the closed gate.
    waiting: usize,
    cancelled: usize,
    batches: Vec<Vec<Vec<u32>>>,
    fails_on: Option<u32>,
    panics_on: Option<u32>,
    /// The positions that fit into memory.
    memory_positions: Option<usize>,
    /// What the next pass tells of passes that it tried again.
    retries: usize,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeControl {
    /// A control with an open gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An executor under this control.
    #[must_use]
    pub fn executor(&self) -> Box<dyn Executor> {
        Box::new(FakeExecutor { control: self.clone(), shapes: None, device: None })
    }

    /// The same, but it says that it rounds passes up.
    #[must_use]
    pub fn rounding(&self, shapes: Shapes) -> Box<dyn Executor> {
        Box::new(FakeExecutor { control: self.clone(), shapes: Some(shapes), device: None })
    }

    /// The same, but on a device that it may share with others.
    #[must_use]
    pub fn executor_on(&self, device: &Arc<FakeDevice>) -> Box<dyn Executor> {
        Box::new(FakeExecutor { control: self.clone(), shapes: None, device: Some(Arc::clone(device)) })
    }

    /// Holds every pass that starts from now on until [`Self::open`] or its cancellation.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Lets held passes go on.
    pub fn open(&self) {
        self.state.lock().closed = false;
        self.state.changed.notify_all();
    }

    /// Blocks until `count` passes are held at the gate.
    pub fn wait_for_held(&self, count: usize) {
        let mut inner = self.state.lock();
        while inner.waiting < count {
            inner = self.state.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until `count` passes were cancelled.
    pub fn wait_for_cancelled(&self, count: usize) {
        let mut inner = self.state.lock();
        while inner.cancelled < count {
            inner = self.state.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes every pass fail whose batch holds this token id.
    pub fn fail_on(&self, id: u32) {
        self.state.lock().fails_on = Some(id);
    }

    /// Makes every pass panic whose batch holds this token id.
    pub fn panic_on(&self, id: u32) {
        self.state.lock().panics_on = Some(id);
    }

    /// Makes every pass run out of memory that has more than so many positions, padding included.
    pub fn run_out_of_memory_above(&self, positions: usize) {
        self.state.lock().memory_positions = Some(positions);
    }

    /// Makes the next pass tell that it ran out of memory so many times before it gave something.
    pub fn retry(&self, times: usize) {
        self.state.lock().retries = times;
    }

    /// The token ids of every batch that was started, in order.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<Vec<u32>>> {
        self.state.lock().batches.clone()
    }
}

/// Scores each sample by [`score`], one output of shape `[1]`.
#[derive(Debug)]
struct FakeExecutor {
    control: FakeControl,
    shapes: Option<Shapes>,
    device: Option<Arc<FakeDevice>>,
}

/// A device without anything on it.
#[derive(Debug)]
pub struct FakeDevice {
    known: Vec<u32>,
}

impl FakeDevice {
    /// A device that knows the whole of texts which begin with one of these ids.
    #[must_use]
    pub fn knowing(known: &[u32]) -> Arc<Self> {
        Arc::new(Self { known: known.to_vec() })
    }
}

impl SharedDevice for FakeDevice {
    fn known(&self, ids: &[u32]) -> usize {
        if ids.first().is_some_and(|first| self.known.contains(first)) { ids.len() } else { 0 }
    }
}

impl Executor for FakeExecutor {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        let state = Arc::clone(&self.control.state);
        let _registration = cancel.on_cancel({
            let state = Arc::clone(&state);
            move || {
                // Taken so that the notice can't fall between a waiter's check and its sleep.
                drop(state.lock());
                state.changed.notify_all();
            }
        });
        let mut inner = state.lock();
        inner.batches.push(batch.inputs().iter().map(|input| input.ids().to_vec()).collect());
        inner.waiting += 1;
        state.changed.notify_all();
        while inner.closed && !cancel.is_cancelled() {
            inner = state.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting -= 1;
        if cancel.is_cancelled() {
            inner.cancelled += 1;
            state.changed.notify_all();
            return Err(RuntimeError::Cancelled);
        }
        let holds = |id: Option<u32>| id.is_some_and(|id| batch.inputs().iter().any(|input| input.ids().contains(&id)));
        let (fails, panics) = (holds(inner.fails_on), holds(inner.panics_on));
        let fits = inner.memory_positions.is_none_or(|positions| batch.padded_tokens() <= positions);
        drop(inner);
        if !fits {
            return Err(RuntimeError::OutOfMemory {
                samples: batch.len(),
                tokens: batch.longest(),
                cause: "told to run out".into(),
            });
        }
        assert!(!panics, "told to panic");
        if fails {
            return Err(RuntimeError::Pass { cause: "told to fail".into() });
        }
        Ok(batch
            .inputs()
            .iter()
            .map(|input| RowTensor::new(vec![1], vec![score(input.ids())]).into_iter().collect())
            .collect())
    }

    fn take_retries(&mut self) -> usize {
        mem::take(&mut self.control.state.lock().retries)
    }

    fn shapes(&self) -> Option<Shapes> {
        self.shapes
    }

    fn device(&self) -> Option<Arc<dyn SharedDevice>> {
        self.device.clone().map(|device| device as Arc<dyn SharedDevice>)
    }
}
