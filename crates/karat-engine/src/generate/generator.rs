//! The thread that writes, and its queue.

use std::{io, sync::Arc};

use karat_runtime::{DecoderExecutor, packed::PackedTexts, prefix::SharedModel};

use super::{
    order::{GenerationLimits, GenerationRefusal, Order},
    orders::Orders,
    rows::Rows,
    stream::Stream,
    worker::Worker,
};
use crate::{
    telemetry::ModelMetrics,
    workers::{Roster, Stage, Workers},
};

/// Writes texts with one model.
///
/// Dropping it stops it at once: what waits and what is being written breaks off with
/// [`super::GenerateError::Stopped`]. Draining the roster finishes everything first.
#[derive(Debug)]
pub struct Generator {
    workers: Workers<Orders>,
}

impl Generator {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(
        executor: Box<dyn DecoderExecutor>,
        limits: GenerationLimits,
        metrics: ModelMetrics,
    ) -> io::Result<Self> {
        Self::start_rows(executor, None, limits, metrics)
    }

    /// The same for a model that scores as well: prompts begin with what is known of them, and are known from then on.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn start_knowing(
        executor: Box<dyn DecoderExecutor>,
        known: Arc<SharedModel>,
        limits: GenerationLimits,
        metrics: ModelMetrics,
    ) -> io::Result<Self> {
        Self::start_rows(executor, Some(known), limits, metrics)
    }

    fn start_rows(
        executor: Box<dyn DecoderExecutor>,
        known: Option<Arc<SharedModel>>,
        limits: GenerationLimits,
        metrics: ModelMetrics,
    ) -> io::Result<Self> {
        let workers = Workers::new(Orders::new(limits, metrics));
        workers.spawn("karat-write", |orders| Worker::new(orders, Rows::new(executor, known)).work())?;
        Ok(Self { workers })
    }

    /// Starts the thread on a share of a session of packed rows.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn start_packed(
        texts: PackedTexts,
        limits: GenerationLimits,
        metrics: ModelMetrics,
    ) -> io::Result<Self> {
        let workers = Workers::new(Orders::new(limits, metrics));
        workers.spawn("karat-write", |orders| Worker::new(orders, texts).work())?;
        Ok(Self { workers })
    }

    /// Admits an order: one stream for each of its texts, in their order.
    ///
    /// # Errors
    /// When too many wait, it is too large, or the generator is stopping.
    pub(crate) fn submit(&self, order: Order) -> Result<Vec<Stream>, GenerationRefusal> {
        self.workers.work().submit(order)
    }

    /// Lets a roster end the thread with those of other queues.
    pub(crate) fn enlist(&self, roster: &Roster, stage: Stage) {
        self.workers.enlist(roster, stage);
    }
}
