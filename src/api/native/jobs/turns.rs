//! Whose turn it is among the jobs: by owner, and then by job, so that who has many jobs takes nobody's turn.

use std::collections::{BTreeMap, HashMap};

use karat_runs::store::RunningJob;
use tokio::time::Instant;

/// The name of the key that a job came with, if it came with one.
type Owner = Option<String>;

/// Who had turns, and which jobs rest until when.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whose turn the last one was.
    last: Option<Owner>,
    /// Which job had each owner's last turn.
    jobs: HashMap<Owner, String>,
    resting: HashMap<String, Instant>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The job of that id.
    Of(String),
    /// All jobs rest, the first of them until then.
    Resting(Instant),
    /// There is no job.
    Nothing,
}

impl Turns {
    /// Gives a turn to one of the jobs that run: to the owner behind the one that had the last, and to the job behind
    /// that owner's last, by their names.
    pub(super) fn next(&mut self, running: Vec<RunningJob>, now: Instant) -> Turn {
        let mut owners: BTreeMap<Owner, Vec<String>> = BTreeMap::new();
        self.resting.retain(|_, until| *until > now);
        for RunningJob { id, key } in running {
            if !self.resting.contains_key(&id) {
                owners.entry(key).or_default().push(id);
            }
        }
        let Some(owner) = behind(self.last.as_ref(), owners.keys()).cloned() else {
            return self.resting.values().min().map_or(Turn::Nothing, |until| Turn::Resting(*until));
        };
        self.jobs.retain(|owner, _| owners.contains_key(owner));
        let mut jobs = owners.remove(&owner).unwrap_or_default();
        jobs.sort_unstable();
        let Some(job) = behind(self.jobs.get(&owner), jobs.iter()).cloned() else { return Turn::Nothing };
        self.jobs.insert(owner.clone(), job.clone());
        self.last = Some(owner);
        Turn::Of(job)
    }

    /// Passes a job over until then.
    pub(super) fn rest(&mut self, job: String, until: Instant) {
        self.resting.insert(job, until);
    }
}

/// The first of those in order that stands behind the last one, or else the first.
fn behind<'a, T: Ord>(last: Option<&T>, mut ordered: impl Iterator<Item = &'a T> + Clone) -> Option<&'a T> {
    let next = ordered.clone().find(|one| last.is_none_or(|last| *one > last));
    next.or_else(|| ordered.next())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Jobs as `owner/id`, without an owner where none is given.
    fn jobs(names: &[&str]) -> Vec<RunningJob> {
        let job = |name: &&str| RunningJob {
            id: (*name).to_owned(),
            key: name.split_once('/').map(|(owner, _)| owner.to_owned()),
        };
        names.iter().map(job).collect()
    }

    fn turns(turns: &mut Turns, names: &[&str], count: usize) -> Vec<String> {
        turns_at(Instant::now(), turns, names, count)
    }

    fn turns_at(now: Instant, turns: &mut Turns, names: &[&str], count: usize) -> Vec<String> {
        let turn = |_| match turns.next(jobs(names), now) {
            Turn::Of(job) => job,
            other => panic!("{other:?}"),
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn who_has_many_jobs_takes_nobodys_turn() {
        let many = ["flood/1", "flood/2", "flood/3", "trainer/1", "9"];
        let taken = turns(&mut Turns::default(), &many, 9);
        assert_eq!(
            taken,
            ["9", "flood/1", "trainer/1", "9", "flood/2", "trainer/1", "9", "flood/3", "trainer/1"],
            "owners take turns, and each one's jobs among themselves"
        );
    }

    #[test]
    fn jobs_of_one_owner_take_turns_and_one_that_is_gone_has_its_neighbours_turn_come() {
        let mut all = Turns::default();
        assert_eq!(turns(&mut all, &["a", "b", "c"], 4), ["a", "b", "c", "a"]);
        assert_eq!(turns(&mut all, &["a", "c"], 2), ["c", "a"]);
        assert_eq!(all.next(Vec::new(), Instant::now()), Turn::Nothing);
    }

    #[test]
    fn those_that_rest_are_passed_over_until_they_have_rested() {
        let (mut all, now) = (Turns::default(), Instant::now());
        let [soon, late] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        all.rest("flood/1".to_owned(), late);
        let taken = turns_at(now, &mut all, &["flood/1", "flood/2", "trainer/1"], 3);
        assert_eq!(taken, ["flood/2", "trainer/1", "flood/2"]);
        all.rest("flood/2".to_owned(), soon);
        let both = || jobs(&["flood/1", "flood/2"]);
        assert_eq!(all.next(both(), now), Turn::Resting(soon));
        assert_eq!(all.next(both(), soon), Turn::Of("flood/2".to_owned()));
        assert_eq!(all.next(both(), late), Turn::Of("flood/1".to_owned()));
    }
}
