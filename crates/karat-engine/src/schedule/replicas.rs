//! Which device a worker's session computes on, and what that means for who takes the next batch.
//!
//! Where two workers share a device, one makes its pass ready while the other's runs. It does so once as much waits as
//! runs: sooner, it would take a few jobs for a pass of their own that fit into the next one as well. Where there are
//! several devices, a job whose beginning one of them knows is left to that one, unless a whole pass waits for it already.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use karat_runtime::{Executor, SharedDevice};

/// The devices of one model's sessions. Sessions that share none have one each.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    devices: Vec<Replica>,
    /// Whether any is shared.
    shared: bool,
}

#[derive(Debug)]
struct Replica {
    device: Option<Arc<dyn SharedDevice>>,
    /// How many passes run on it or are made ready, and their tokens.
    passes: usize,
    tokens: usize,
    /// When the last of its passes ended.
    ended: Option<Instant>,
}

/// Knows where jobs would rather run.
#[derive(Debug, Clone, Default)]
pub(super) struct Homes(Vec<Arc<dyn SharedDevice>>);

impl Replicas {
    /// Gives each session the number of its device.
    pub(super) fn of(sessions: &[Box<dyn Executor>]) -> (Self, Vec<usize>) {
        let mut replicas = Self::default();
        let numbers = sessions.iter().map(|session| replicas.number(session.device())).collect();
        (replicas, numbers)
    }

    fn number(&mut self, device: Option<Arc<dyn SharedDevice>>) -> usize {
        let is_same = |replica: &Replica| match (&replica.device, &device) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if let Some(number) = self.devices.iter().position(is_same) {
            self.shared = true;
            return number;
        }
        self.devices.push(Replica { device, passes: 0, tokens: 0, ended: None });
        self.devices.len() - 1
    }

    /// Whether two workers share a device.
    pub(super) fn are_shared(&self) -> bool {
        self.shared
    }

    /// How many devices there are.
    pub(super) fn count(&self) -> usize {
        self.devices.len()
    }

    /// What knows where jobs would rather run; nothing where there is no choice.
    pub(super) fn homes(&self) -> Homes {
        let devices: Option<Vec<_>> = self.devices.iter().map(|replica| replica.device.clone()).collect();
        Homes(devices.filter(|devices| devices.len() > 1).unwrap_or_default())
    }

    /// Whether a worker of that device may take a batch now, where so many tokens wait and a full batch has `budget`.
    pub(super) fn may_begin(&self, number: usize, waiting: usize, budget: usize) -> bool {
        let Some(here) = self.devices.get(number) else { return true };
        let is_idle_elsewhere = || self.devices.iter().any(|replica| replica.passes == 0);
        here.passes == 0 || (waiting >= here.tokens.min(budget) && !is_idle_elsewhere())
    }

    /// A pass of so many tokens was taken for that device.
    pub(super) fn begin(&mut self, number: usize, tokens: usize) {
        if let Some(here) = self.devices.get_mut(number) {
            here.passes += 1;
            here.tokens += tokens;
        }
    }

    /// Such a pass has ended at `now`, `took` after it was taken; gives how long it had the device.
    pub(super) fn end(&mut self, number: usize, tokens: usize, took: Duration, now: Instant) -> Duration {
        let Some(here) = self.devices.get_mut(number) else { return took };
        here.passes -= 1;
        here.tokens -= tokens;
        let before = here.ended.replace(now);
        before.map_or(took, |before| took.min(now.saturating_duration_since(before)))
    }
}

impl Homes {
    /// The device that knows most of what a text begins with; `None` where none knows anything.
    pub(super) fn of(&self, ids: &[u32]) -> Option<usize> {
        let known = self.0.iter().map(|device| device.known(ids)).enumerate();
        // The first of equals.
        known.filter(|(_, known)| *known > 0).rev().max_by_key(|(_, known)| *known).map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use karat_runtime::fake::{FakeControl, FakeDevice};

    use super::*;

    #[test]
    fn sessions_of_one_device_are_told_from_those_of_others() {
        let control = FakeControl::new();
        let (one, other) = (FakeDevice::knowing(&[1]), FakeDevice::knowing(&[2, 1]));
        let on = |device: &Arc<FakeDevice>| control.executor_on(device);
        let (replicas, numbers) = Replicas::of(&[on(&one), on(&other), on(&one), on(&other)]);
        assert_eq!((numbers, replicas.count(), replicas.are_shared()), (vec![0, 1, 0, 1], 2, true));
        let homes = replicas.homes();
        assert_eq!([1, 2, 3].map(|first| homes.of(&[first, 9])), [Some(0), Some(1), None]);
        let (replicas, numbers) = Replicas::of(&[control.executor(), control.executor()]);
        assert_eq!((numbers, replicas.are_shared(), replicas.homes().of(&[1])), (vec![0, 1], false, None));
    }

    #[test]
    fn a_pass_is_made_ready_once_as_much_waits_as_runs_and_no_device_is_idle() {
        let control = FakeControl::new();
        let (one, other) = (FakeDevice::knowing(&[]), FakeDevice::knowing(&[]));
        let on = |device: &Arc<FakeDevice>| control.executor_on(device);
        let (mut replicas, _) = Replicas::of(&[on(&one), on(&other), on(&one), on(&other)]);
        replicas.begin(0, 300);
        assert!(replicas.may_begin(1, 1, 1000) && !replicas.may_begin(0, 900, 1000), "the other is idle");
        replicas.begin(1, 2000);
        assert!(!replicas.may_begin(0, 299, 1000) && replicas.may_begin(0, 300, 1000));
        assert!(!replicas.may_begin(1, 999, 1000) && replicas.may_begin(1, 1000, 1000), "a full pass waits");
        let start = Instant::now();
        let after = |milliseconds| Duration::from_millis(milliseconds);
        assert_eq!(replicas.end(1, 2000, after(5), start), after(5));
        // Taken 7 ms ago, but the device was another's until 4 ms ago.
        replicas.begin(1, 100);
        assert_eq!(replicas.end(1, 100, after(7), start + after(4)), after(4));
        assert!(replicas.may_begin(1, 1, 1000));
    }
}
