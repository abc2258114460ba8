//! Takes what was scored off the threads that answer clients: they leave it in a bounded queue, which one thread empties.
//!
//! Nothing ever waits for it. What finds the queue full is left out of the statistics, and counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use karat_rules::domain::ModelName;

use super::Runs;
use crate::run::{Batch, Beside, Matched, RunName};

/// How many records wait.
const QUEUE: usize = 4096;

/// What is to be recorded.
#[derive(Debug)]
pub enum Record {
    /// Samples that were scored.
    Scored(Box<Batch>),
    /// Samples that got no reward.
    Unscored {
        /// The run.
        run: RunName,
        /// The model.
        model: ModelName,
        /// The step, if the request named one.
        step: Option<u64>,
        /// How many there were.
        samples: u64,
    },
    /// Samples that a second judge didn't score.
    Unjudged {
        /// The run.
        run: RunName,
        /// How many there were.
        samples: u64,
    },
    /// Numbers beside rewards.
    Beside {
        /// The run.
        run: RunName,
        /// What they are.
        what: Beside,
        /// Each beside its reward.
        pairs: Vec<(Matched, f64)>,
    },
}

impl Record {
    fn samples(&self) -> u64 {
        match self {
            Self::Scored(batch) => batch.samples.len() as u64,
            Self::Unscored { samples, .. } | Self::Unjudged { samples, .. } => *samples,
            Self::Beside { pairs, .. } => pairs.len() as u64,
        }
    }
}

/// The queue's entrance.
#[derive(Debug)]
pub struct Recorder {
    queue: SyncSender<Message>,
    dropped: AtomicU64,
}

enum Message {
    Record(Record),
    /// Answers when everything before it is recorded.
    Flush(SyncSender<()>),
}

impl Recorder {
    /// Starts the thread that records into `runs`. It ends when the recorder is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(runs: Arc<Runs>) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        thread::Builder::new().name("karat-runs".to_owned()).spawn(move || record(&runs, &records))?;
        Ok(Self { queue, dropped: AtomicU64::new(0) })
    }

    /// Leaves something to be recorded. Never waits.
    pub fn record(&self, record: Record) {
        let samples = record.samples();
        if self.queue.try_send(Message::Record(record)).is_err() {
            self.dropped.fetch_add(samples, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was left before is recorded.
    pub fn flush(&self) {
        let (done, recorded) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            // The thread answers, or has ended with nothing left to do.
            let _ = recorded.recv();
        }
    }

    /// How many samples found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn record(runs: &Runs, records: &Receiver<Message>) {
    for message in records {
        let now = milliseconds();
        match message {
            Message::Record(Record::Scored(batch)) => runs.add(&batch, now),
            Message::Record(Record::Unscored { run, model, step, samples }) => {
                runs.add_unscored(&run, &model, step, samples, now);
            }
            Message::Record(Record::Unjudged { run, samples }) => runs.add_unjudged(&run, samples),
            Message::Record(Record::Beside { run, what, pairs }) => {
                for (matched, other) in pairs {
                    runs.add_beside(&run, what, &matched, other, now);
                }
            }
            // Who asked may have gone.
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

/// The time in milliseconds since 1970.
pub(crate) fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
