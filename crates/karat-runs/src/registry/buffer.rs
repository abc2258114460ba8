//! What requests left on one thread until it is folded into their runs.

use super::{ClaimedRun, Runs};
use crate::{
    run::{Batch, Origin, OriginRef, Request},
    statistics::{Gathered, Kind, Observation},
};

/// The most bytes of which an empty buffer keeps the memory.
const KEPT: usize = 1 << 20;

/// What requests left, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    parts: Vec<Part>,
    /// Each with how many samples it left.
    requests: Vec<(Request, usize)>,
    gathered: Gathered,
}

/// Requests that follow each other and have all of this in common.
#[derive(Debug)]
struct Part {
    /// The place of the first of them among the parts of all threads.
    number: u64,
    run: ClaimedRun,
    origin: Origin,
    kind: Kind,
    requests: usize,
    samples: usize,
}

impl Buffer {
    /// Puts a request behind the others. `number` is asked for the place of a new part.
    pub(super) fn push(
        &mut self,
        run: ClaimedRun,
        origin: OriginRef<'_>,
        request: Request,
        samples: impl Iterator<Item = Observation> + Clone,
        members: Option<impl Iterator<Item = f32>>,
        number: impl FnOnce() -> u64,
    ) {
        let (samples, kind) = self.gathered.extend(samples, members);
        self.requests.push((request, samples));
        let fits =
            |part: &&mut Part| part.run.is(&run) && origin.is(&part.origin) && (part.kind == kind || samples == 0);
        match self.parts.last_mut().filter(fits) {
            Some(part) => {
                part.requests += 1;
                part.samples += samples;
            }
            None => {
                let (number, origin) = (number(), origin.to_owned());
                self.parts.push(Part { number, run, origin, kind, requests: 1, samples });
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many samples wait, and requests, some of which may have none.
    pub(super) fn entries(&self) -> usize {
        self.gathered.count() + self.requests.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.parts) + size_of_val(&*self.requests) + self.gathered.bytes()
    }

    /// Empties it, and gives the memory of a rush back.
    pub(super) fn clear(&mut self) {
        if self.bytes() > KEPT {
            *self = Self::default();
        }
        self.parts.clear();
        self.requests.clear();
        self.gathered.clear();
    }

    /// Its parts, each with what its requests left.
    fn batches(&self) -> impl Iterator<Item = (&Part, Batch<'_>)> {
        let (mut requests, mut gathered) = (&self.requests[..], self.gathered.in_parts());
        self.parts.iter().map(move |part| {
            let requests = requests.split_off(..part.requests).unwrap_or_default();
            (part, Batch { origin: &part.origin, requests, samples: gathered.next(part.samples, part.kind) })
        })
    }
}

/// Folds what requests left on all threads: parts in the order in which they began, and neighbours of one run together.
/// Requests of one step that were left on different threads have no order among each other.
pub(super) fn fold(buffers: &[Buffer], runs: &Runs, now: u64) {
    let mut parts: Vec<_> = buffers.iter().flat_map(Buffer::batches).collect();
    parts.sort_by_key(|(part, _)| part.number);
    for of_one_run in parts.chunk_by(|(one, _), (next, _)| one.run.is(&next.run)) {
        runs.add(&of_one_run[0].0.run, of_one_run.iter().map(|(_, batch)| *batch), now);
    }
}
