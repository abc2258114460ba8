//! The rewards that were given lately, by request and place, so that what came of a sample can be laid beside its reward.
//!
//! Requests lie one behind the other in a few rings: keeping one costs no allocation, and an outcome, which comes seldom,
//! looks through the keys.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Request;

/// The most bytes that one run's rewards need; the rings, which grow by doubling, take up to twice as many.
const BYTES: usize = 128 << 10;

/// By what the rewards of a request are found: a hash of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey(u64);

impl RequestKey {
    /// The key of the request of that id.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self(xxh3_64(id.as_bytes()))
    }
}

/// Whose rewards they are, and how many.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    step: u64,
    track: u8,
    rewards: u32,
}

/// The latest requests of a run, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<Written>", from = "Vec<Written>")]
pub(super) struct Given {
    keys: VecDeque<RequestKey>,
    entries: VecDeque<Entry>,
    /// By place in each request; not a number of a sample that got none.
    rewards: VecDeque<f32>,
}

/// The reward of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub(super) step: u64,
    /// Which of the run's models it was.
    pub(super) track: u8,
    pub(super) reward: f32,
}

/// A request as it is written to a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Written {
    key: RequestKey,
    step: u64,
    track: u8,
    rewards: Vec<Option<f32>>,
}

impl From<Given> for Vec<Written> {
    fn from(given: Given) -> Self {
        let mut rewards = given.rewards.into_iter().map(|reward| (!reward.is_nan()).then_some(reward));
        let requests = given.keys.into_iter().zip(given.entries);
        let written = requests.map(|(key, Entry { step, track, rewards: count })| Written {
            key,
            step,
            track,
            rewards: rewards.by_ref().take(count as usize).collect(),
        });
        written.collect()
    }
}

impl From<Vec<Written>> for Given {
    fn from(written: Vec<Written>) -> Self {
        let mut given = Self::default();
        for Written { key, step, track, rewards } in written {
            given.keep(key, step, track, rewards.into_iter().map(|reward| reward.unwrap_or(f32::NAN)));
        }
        given
    }
}

impl Given {
    /// Keeps the rewards of a request.
    pub(super) fn add(&mut self, request: &Request, step: u64, track: u8, scored: impl Iterator<Item = f32>) {
        match &request.places {
            None => self.keep(request.key, step, track, scored),
            Some(places) => {
                let mut rewards = vec![f32::NAN; places.last().map_or(0, |last| last + 1)];
                for (place, reward) in places.iter().zip(scored) {
                    rewards.get_mut(*place).into_iter().for_each(|kept| *kept = reward);
                }
                self.keep(request.key, step, track, rewards.into_iter());
            }
        }
    }

    /// Keeps rewards by place; not a number for a sample that got none.
    fn keep(&mut self, key: RequestKey, step: u64, track: u8, rewards: impl Iterator<Item = f32>) {
        let before = self.rewards.len();
        self.rewards.extend(rewards);
        // No request has as many samples.
        let rewards = u32::try_from(self.rewards.len() - before).unwrap_or(u32::MAX);
        self.keys.push_back(key);
        self.entries.push_back(Entry { step, track, rewards });
        while self.needed() > BYTES && self.entries.len() > 1 {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.keys.pop_front();
            self.rewards.drain(..oldest.rewards as usize);
        }
    }

    /// The reward of a sample of a request, if it is among the latest; of several requests of one id the latest one's.
    pub(super) fn find(&self, key: RequestKey, index: usize) -> Option<Found> {
        let request = self.keys.iter().rposition(|other| *other == key)?;
        let Entry { step, track, rewards } = self.entries[request];
        if index >= rewards as usize {
            return None;
        }
        let later: usize = self.entries.range(request..).map(|entry| entry.rewards as usize).sum();
        let reward = self.rewards[self.rewards.len() - later + index];
        (!reward.is_nan()).then_some(Found { step, track, reward })
    }

    fn needed(&self) -> usize {
        self.entries.len() * (size_of::<RequestKey>() + size_of::<Entry>()) + self.rewards.len() * size_of::<f32>()
    }

    /// The memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<RequestKey>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.rewards.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(request: u32) -> RequestKey {
        RequestKey::of(&request.to_string())
    }

    #[test]
    fn the_latest_requests_are_found_and_memory_is_bounded() {
        let mut given = Given::default();
        for request in 0..100_000 {
            given.keep(key(request), 3, 1, [request as f32, f32::NAN, 0.5].into_iter());
        }
        let found = |request, index| given.find(key(request), index);
        assert_eq!(found(99_999, 0), Some(Found { step: 3, track: 1, reward: 99_999.0 }));
        assert_eq!(found(98_000, 2), Some(Found { step: 3, track: 1, reward: 0.5 }));
        assert_eq!([found(99_999, 1), found(99_999, 3), found(0, 0)], [None; 3]);
        assert!(given.bytes() <= 2 * BYTES && given.rewards.len() > 10_000);
        let written = serde_json::to_string(&given).unwrap();
        let read: Given = serde_json::from_str(&written).unwrap();
        assert_eq!(read.find(key(98_000), 2), found(98_000, 2));
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }

    #[test]
    fn one_id_twice_means_the_later_request() {
        let mut given = Given::default();
        given.keep(key(0), 1, 0, [1.0].into_iter());
        given.keep(key(0), 2, 0, [2.0].into_iter());
        assert_eq!(given.find(key(0), 0).unwrap().step, 2);
    }
}
