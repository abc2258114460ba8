//! What happens in a run that somebody may want to hear of at once.

use std::collections::VecDeque;

use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::StepReport;
use crate::signals::Reading;

/// How many events a run keeps for those who come later.
const KEPT: usize = 128;

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Counts the run's events, from 1.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The model whose rewards it is about.
    pub model: ModelName,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A signal began to fire, or stopped.
    Signal {
        /// The signal.
        signal: String,
        /// Whether it fires now.
        firing: bool,
        /// The latest step that it saw.
        step: u64,
        /// On what evidence.
        reading: Reading,
    },
    /// A step is over: the next one has begun.
    Step {
        /// What is known of it.
        step: Box<StepReport>,
    },
}

impl EventKind {
    /// The word by which streams tell events apart.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Signal { .. } => "signal",
            Self::Step { .. } => "step",
        }
    }
}

/// A run's latest signals, and the number of the next event. Steps are told as they end and stand in the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Events {
    last: u64,
    kept: VecDeque<Event>,
}

impl Events {
    pub(super) fn add(&mut self, at: u64, model: &ModelName, kind: EventKind) -> Event {
        self.last += 1;
        let event = Event { id: self.last, at, model: model.clone(), kind };
        if matches!(event.kind, EventKind::Signal { .. }) {
            self.kept.push_back(event.clone());
            if self.kept.len() > KEPT {
                self.kept.pop_front();
            }
        }
        event
    }

    /// Counts something that happened and that nobody hears of.
    pub(super) fn pass(&mut self) {
        self.last += 1;
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = &Event> {
        self.kept.iter()
    }

    pub(super) fn bytes(&self) -> usize {
        self.kept.len() * (size_of::<Event>() + 64)
    }
}
