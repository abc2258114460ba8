//! Every end of threads whose one job is held until it is let through or cancelled.

use std::{
    collections::VecDeque,
    sync::{Condvar, mpsc},
};

use karat_runtime::Cancellation;

use super::*;

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Done,
    Failed,
}

/// Each job waits until it is let through, and tells how it ended.
struct Held {
    gate: Gate<VecDeque<mpsc::Sender<Told>>>,
    wanted: Condvar,
    let_through: Mutex<bool>,
    changed: Condvar,
    cancellation: Cancellation,
    began: mpsc::Sender<()>,
}

impl Held {
    fn workers() -> (Workers<Self>, mpsc::Receiver<()>) {
        let (began, begun) = mpsc::channel();
        let held = Self {
            gate: Gate::new(VecDeque::new()),
            wanted: Condvar::new(),
            let_through: Mutex::default(),
            changed: Condvar::new(),
            cancellation: Cancellation::new(),
            began,
        };
        let workers = Workers::new(held);
        workers.spawn("held", |held| held.work()).unwrap();
        (workers, begun)
    }

    fn work(&self) {
        loop {
            let mut queue = self.gate.lock();
            let job = loop {
                match queue.pop_front() {
                    Some(job) => break job,
                    None if !queue.is_open() => return,
                    None => queue = self.wanted.wait(queue).unwrap(),
                }
            };
            drop(queue);
            self.began.send(()).unwrap();
            let held = self.let_through.lock().unwrap();
            drop(self.changed.wait_while(held, |through| !*through && !self.cancellation.is_cancelled()).unwrap());
            let told = if self.cancellation.is_cancelled() { Told::Failed } else { Told::Done };
            // The tests submit some jobs only to see whether they are taken.
            drop(job.send(told));
        }
    }

    fn let_through(&self) {
        *self.let_through.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn submit(&self) -> Option<mpsc::Receiver<Told>> {
        let (job, told) = mpsc::channel();
        let mut queue = self.gate.lock();
        if !queue.is_open() {
            return None;
        }
        queue.push_back(job);
        self.wanted.notify_one();
        Some(told)
    }
}

impl Work for Held {
    type Queue = VecDeque<mpsc::Sender<Told>>;
    type Abandoned = VecDeque<mpsc::Sender<Told>>;

    fn gate(&self) -> &Gate<Self::Queue> {
        &self.gate
    }

    fn wake_all(&self) {
        self.wanted.notify_all();
    }

    fn give_up(&self, queue: &mut Self::Queue) -> Self::Abandoned {
        std::mem::take(queue)
    }

    fn fail(&self, abandoned: Self::Abandoned) {
        abandoned.iter().for_each(|job| drop(job.send(Told::Failed)));
        self.cancellation.cancel();
        drop(self.let_through.lock().unwrap());
        self.changed.notify_all();
    }
}

#[test]
fn draining_finishes_what_was_admitted() {
    let roster = Roster::default();
    let (workers, begun) = Held::workers();
    // As a model does that is loaded and then serves.
    workers.enlist(&roster, Stage::Loading);
    workers.enlist(&roster, Stage::Serving);
    let held = workers.work();
    let told = [held.submit().unwrap(), held.submit().unwrap()];
    begun.recv().unwrap();
    thread::scope(|scope| {
        let drained = scope.spawn(|| roster.drain());
        while held.submit().is_some() {
            thread::yield_now();
        }
        assert!(!drained.is_finished(), "a job is still held");
        held.let_through();
    });
    assert_eq!(told.map(|told| told.recv().unwrap()), [Told::Done, Told::Done]);
    assert!(roster.is_closed());
}

#[test]
fn stopping_fails_what_waits_and_cancels_what_runs_even_while_it_drains() {
    let roster = Roster::default();
    let (workers, begun) = Held::workers();
    workers.enlist(&roster, Stage::Serving);
    let held = workers.work();
    let told = [held.submit().unwrap(), held.submit().unwrap()];
    begun.recv().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| roster.drain());
        while !roster.is_closed() {
            thread::yield_now();
        }
        roster.stop();
    });
    assert_eq!(told.map(|told| told.recv().unwrap()), [Told::Failed, Told::Failed]);
    assert!(held.submit().is_none());
}

#[test]
fn draining_waits_for_nothing_that_was_only_given_to_load_a_model() {
    let roster = Roster::default();
    let (workers, begun) = Held::workers();
    workers.enlist(&roster, Stage::Loading);
    let told = workers.work().submit().unwrap();
    begun.recv().unwrap();
    roster.drain();
    assert_eq!(told.recv().unwrap(), Told::Failed);
}

#[test]
fn threads_that_start_when_the_end_has_come_are_stopped_at_once() {
    let roster = Roster::default();
    roster.stop();
    let (workers, _begun) = Held::workers();
    workers.enlist(&roster, Stage::Serving);
    assert!(workers.work().submit().is_none());
    roster.drain();
}

#[test]
fn dropping_the_owner_stops_its_threads() {
    let (workers, begun) = Held::workers();
    let told = [workers.work().submit().unwrap(), workers.work().submit().unwrap()];
    begun.recv().unwrap();
    drop(workers);
    assert_eq!(told.map(|told| told.recv().unwrap()), [Told::Failed, Told::Failed]);
}
