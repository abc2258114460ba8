//! The orders that wait for the thread that writes.

use std::{
    collections::VecDeque,
    sync::{Condvar, PoisonError},
};

use karat_runtime::Cancellation;

use super::{
    order::{GenerationLimits, GenerationRefusal, Order},
    stream::{GenerateError, Sender, Stream},
};
use crate::{
    telemetry::ModelMetrics,
    workers::{Gate, Work},
};

/// An order with those who wait for its texts.
#[derive(Debug)]
pub(super) struct WaitingOrder {
    pub(super) order: Order,
    pub(super) senders: Vec<Sender>,
    /// How many orders that came later have begun before it.
    passed_by: usize,
}

/// How many later orders may begin before one that doesn't fit yet: enough that a large one holds nobody up while
/// there is room, and few enough that a stream of small ones never keeps it waiting for ever.
const PATIENCE: usize = 16;

impl WaitingOrder {
    pub(super) fn is_abandoned(&self) -> bool {
        self.senders.iter().all(Sender::is_closed)
    }
}

/// What the thread that writes shares with those who order.
#[derive(Debug)]
pub(super) struct Orders {
    gate: Gate<VecDeque<WaitingOrder>>,
    wanted: Condvar,
    pub(super) limits: GenerationLimits,
    pub(super) metrics: ModelMetrics,
    /// Cancels everything that is being written.
    pub(super) cancellation: Cancellation,
}

impl Orders {
    /// None yet.
    pub(super) fn new(limits: GenerationLimits, metrics: ModelMetrics) -> Self {
        Self {
            gate: Gate::new(VecDeque::new()),
            wanted: Condvar::new(),
            limits,
            metrics,
            cancellation: Cancellation::new(),
        }
    }

    /// Admits an order: one stream for each of its texts, in their order.
    ///
    /// # Errors
    /// When too many wait, it is too large, or the generator is stopping.
    pub(super) fn submit(&self, order: Order) -> Result<Vec<Stream>, GenerationRefusal> {
        order.check(&self.limits)?;
        let mut waiting = self.gate.lock();
        if !waiting.is_open() {
            return Err(GenerationRefusal::Stopped);
        }
        waiting.retain(|order| !order.is_abandoned());
        if waiting.len() >= self.limits.waiting {
            self.metrics.generation_refused();
            return Err(GenerationRefusal::Full(waiting.len()));
        }
        let (senders, streams) = order.texts.iter().map(|_| Sender::pair()).unzip();
        waiting.push_back(WaitingOrder { order, senders, passed_by: 0 });
        self.wanted.notify_one();
        Ok(streams)
    }

    /// The next order that `fits`: the first, or one behind it while those ahead have the patience. Waits for one while
    /// `idle`; `None` when there is none to start now, or, if `idle`, ever again.
    pub(super) fn next(&self, idle: bool, fits: impl Fn(&Order) -> bool) -> Option<WaitingOrder> {
        let mut waiting = self.gate.lock();
        loop {
            waiting.retain(|order| !order.is_abandoned());
            let patient = waiting.iter().take_while(|order| order.passed_by < PATIENCE).count();
            // Behind the first that has lost patience nobody begins, though itself may.
            if let Some(at) = waiting.iter().take(patient + 1).position(|order| fits(&order.order)) {
                waiting.iter_mut().take(at).for_each(|ahead| ahead.passed_by += 1);
                return waiting.remove(at);
            }
            if !idle || !waiting.is_open() {
                return None;
            }
            waiting = self.wanted.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Work for Orders {
    type Queue = VecDeque<WaitingOrder>;
    type Abandoned = VecDeque<WaitingOrder>;

    fn gate(&self) -> &Gate<Self::Queue> {
        &self.gate
    }

    fn wake_all(&self) {
        self.wanted.notify_all();
    }

    fn give_up(&self, waiting: &mut Self::Queue) -> Self::Abandoned {
        std::mem::take(waiting)
    }

    fn fail(&self, abandoned: Self::Abandoned) {
        for sender in abandoned.iter().flat_map(|order| &order.senders) {
            sender.send(Err(GenerateError::Stopped));
        }
        self.cancellation.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::{super::sampling::Sampling, *};
    use crate::telemetry::testing::Recorded;

    #[test]
    fn an_order_that_does_not_fit_is_passed_by_a_few_times_and_never_for_ever() {
        let metrics = Recorded::new();
        let orders = Orders::new(GenerationLimits::default(), metrics.model.clone());
        let mut streams = Vec::new();
        let mut wait = |texts: usize| {
            let order = Order {
                prompt: [1].into(),
                texts: vec![Sampling::GREEDY; texts],
                max_tokens: NonZeroUsize::MIN,
                ends: [].into(),
            };
            streams.extend(orders.submit(order).unwrap());
        };
        wait(9);
        (0..2 * PATIENCE).for_each(|_| wait(1));
        let next =
            |room| orders.next(false, |order| order.texts.len() <= room).map(|waiting| waiting.order.texts.len());
        for _ in 0..PATIENCE {
            assert_eq!(next(8), Some(1), "there is room for it");
        }
        assert_eq!(next(8), None, "what becomes free is kept for the first");
        assert_eq!(next(9), Some(9));
        assert_eq!(next(8), Some(1));
    }
}
