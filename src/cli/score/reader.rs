//! The rows of the input on a thread of its own, without those that an earlier run has done.

use std::{mem, ops::ControlFlow, thread};

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::output::Earlier;
use crate::cli::{
    CommandError,
    backend::Input,
    rows::{FieldArguments, Row, Rows},
};

/// How many rows make the first parcel: one soon sees scores, and how fast they come. Each next one is twice as large.
const FIRST_BATCH: usize = 4;

/// A row that waits for its scores.
pub(super) struct WaitingRow {
    pub(super) number: u64,
    pub(super) place: String,
    pub(super) check: String,
    pub(super) kept: Map<String, Value>,
    pub(super) input: Result<Input, String>,
}

/// What the reader sends.
pub(super) enum Parcel {
    /// What an earlier run has done, all of which comes before everything else.
    Done(Passed),
    /// Rows to score.
    Rows(Vec<WaitingRow>),
    /// The input or the earlier output can't be read on.
    Broken(CommandError),
}

/// Rows that need no scores any more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Passed {
    /// How many there are.
    pub(super) rows: u64,
    /// How many of those from [`Source::counted_from`] on are samples.
    pub(super) samples: u64,
}

/// What is read, and how.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) rows: Rows,
    /// What decides the scores beside the rows.
    pub(super) fingerprint: String,
    pub(super) fields: FieldArguments,
    pub(super) keep: Vec<String>,
    /// The most rows of a parcel.
    pub(super) batch: usize,
    /// From which row on samples are counted that are passed over.
    pub(super) counted_from: u64,
}

impl Source {
    /// Reads the rows that `earlier` lacks; `waiting` parcels wait at most.
    ///
    /// The thread ends by itself: at the input's end, or when nobody takes its parcels any more.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(super) fn read(
        &self,
        earlier: Option<Earlier>,
        waiting: usize,
    ) -> Result<mpsc::Receiver<Parcel>, CommandError> {
        let (sender, parcels) = mpsc::channel(waiting);
        let reader =
            Reader { source: self.clone(), batch: FIRST_BATCH.min(self.batch), earlier, passed: Passed::default() };
        thread::Builder::new().name("karat-rows".to_owned()).spawn(move || reader.read(&sender))?;
        Ok(parcels)
    }
}

impl Source {
    fn input(&self, row: &Row) -> Result<Input, String> {
        row.fields.as_ref().map_err(Clone::clone).and_then(|fields| self.fields.input(fields, self.rows.folder()))
    }
}

struct Reader {
    source: Source,
    /// How many rows make the next parcel.
    batch: usize,
    /// Until the earlier run's lines are used up.
    earlier: Option<Earlier>,
    passed: Passed,
}

impl Reader {
    fn read(mut self, sender: &mpsc::Sender<Parcel>) {
        let (mut batch, mut broken) = (Vec::with_capacity(self.batch), None);
        let rows = self.source.rows.clone();
        let read = rows.each(|row| {
            match self.take(row, sender) {
                Ok(Some(row)) => batch.push(row),
                Ok(None) => {}
                Err(error) => {
                    broken = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if batch.len() < self.batch {
                return ControlFlow::Continue(());
            }
            self.batch = (2 * self.batch).min(self.source.batch);
            let full = mem::replace(&mut batch, Vec::with_capacity(self.batch));
            match sender.blocking_send(Parcel::Rows(full)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        let mut left_over = || match self.earlier.as_mut()?.next() {
            Ok(Some(done)) => Some(self.earlier.as_ref()?.mismatch(&format!("the input has no row {}", done.row))),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let last = match broken.or(read.err()) {
            None if batch.is_empty() => left_over().map(Parcel::Broken),
            None => Some(Parcel::Rows(batch)),
            Some(error) => Some(Parcel::Broken(error)),
        };
        if let Some(last) = last {
            // Whoever no longer listens has an error of its own to tell.
            let _ = sender.blocking_send(last);
        }
    }

    /// The row if it still has to be scored.
    fn take(&mut self, row: Row, sender: &mpsc::Sender<Parcel>) -> Result<Option<WaitingRow>, CommandError> {
        let check = row.check(&self.source.fingerprint);
        if let Some(earlier) = &mut self.earlier {
            match earlier.next()? {
                Some(done) if done.row == row.number && done.check == check => {
                    self.passed.rows = row.number + 1;
                    let counts = row.number >= self.source.counted_from;
                    self.passed.samples += u64::from(counts && self.source.input(&row).is_ok());
                    return Ok(None);
                }
                Some(done) => return Err(earlier.mismatch(&format!("row {} was another one", done.row))),
                None => {
                    self.earlier = None;
                    // As above: the other side has an error of its own.
                    let _ = sender.blocking_send(Parcel::Done(self.passed));
                }
            }
        }
        let kept = match &row.fields {
            Ok(fields) => {
                self.source.keep.iter().filter_map(|name| Some((name.clone(), fields.get(name)?.clone()))).collect()
            }
            Err(_) => Map::new(),
        };
        let input = self.source.input(&row);
        Ok(Some(WaitingRow { number: row.number, place: row.place, check, kept, input }))
    }
}
