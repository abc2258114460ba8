//! The rewards that were given lately, by request and place, so that what came of a sample can be laid beside its reward.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The most bytes that one run's rewards take.
const BYTES: usize = 192 << 10;
/// What a request takes beside its rewards, the maps' own memory included.
const REQUEST: usize = 96;
/// What a reward takes.
const REWARD: usize = size_of::<Option<f32>>();

/// The rewards of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GivenRequest {
    key: u64,
    pub(super) step: u64,
    /// Which of the run's models it was.
    pub(super) track: u8,
    /// By place in the request; none of a sample that got none.
    pub(super) rewards: Vec<Option<f32>>,
}

/// The latest requests of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<GivenRequest>", from = "Vec<GivenRequest>")]
pub(super) struct Given {
    requests: VecDeque<GivenRequest>,
    /// The place of each among all that there ever were.
    places: HashMap<u64, u64>,
    dropped: u64,
    bytes: usize,
}

impl From<Given> for Vec<GivenRequest> {
    fn from(given: Given) -> Self {
        given.requests.into()
    }
}

impl From<Vec<GivenRequest>> for Given {
    fn from(requests: Vec<GivenRequest>) -> Self {
        let mut given = Self::default();
        requests.into_iter().for_each(|request| given.push(request));
        given
    }
}

impl Given {
    /// Keeps the rewards of a request.
    pub(super) fn add(&mut self, request: &str, step: u64, track: u8, rewards: impl Iterator<Item = Option<f64>>) {
        let rewards = rewards.map(|reward| reward.map(|reward| reward as f32)).collect();
        self.push(GivenRequest { key: xxh3_64(request.as_bytes()), step, track, rewards });
    }

    fn push(&mut self, request: GivenRequest) {
        self.bytes += REQUEST + request.rewards.len() * REWARD;
        self.places.insert(request.key, self.dropped + self.requests.len() as u64);
        self.requests.push_back(request);
        while self.bytes > BYTES && self.requests.len() > 1 {
            let Some(oldest) = self.requests.pop_front() else { break };
            self.bytes -= REQUEST + oldest.rewards.len() * REWARD;
            // A later request of the same id has its own place.
            if self.places.get(&oldest.key) == Some(&self.dropped) {
                self.places.remove(&oldest.key);
            }
            self.dropped += 1;
        }
    }

    /// The request of that id, if it is among the latest.
    pub(super) fn find(&self, request: &str) -> Option<&GivenRequest> {
        let place = self.places.get(&xxh3_64(request.as_bytes()))? - self.dropped;
        self.requests.get(usize::try_from(place).ok()?)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_requests_are_found_and_memory_is_bounded() {
        let mut given = Given::default();
        for request in 0..100_000_u32 {
            given.add(&request.to_string(), 3, 1, [Some(f64::from(request)), None].into_iter());
        }
        let latest = given.find("99999").unwrap();
        assert_eq!((latest.step, latest.track, latest.rewards.as_slice()), (3, 1, &[Some(99999.0), None][..]));
        assert!(given.find("0").is_none());
        assert!(given.bytes() <= BYTES && given.places.len() == given.requests.len());
        let read: Given = serde_json::from_str(&serde_json::to_string(&given).unwrap()).unwrap();
        assert_eq!(read.find("99999"), given.find("99999"));
    }

    #[test]
    fn one_id_twice_means_the_later_request() {
        let mut given = Given::default();
        given.add("a", 1, 0, [Some(1.0)].into_iter());
        given.add("a", 2, 0, [Some(2.0)].into_iter());
        assert_eq!(given.find("a").unwrap().step, 2);
    }
}
