//! A share of a model's requests for another version: as an answer (canary), or beside the answer, to compare (shadow).

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use karat_rules::domain::{ModelName, Sample};

/// A share of requests, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

/// A number that is no share.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no share of requests; write a number from 0 to 1")]
pub struct ShareError(f64);

impl TryFrom<f64> for Share {
    type Error = ShareError;

    fn try_from(share: f64) -> Result<Self, ShareError> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(ShareError(share)) }
    }
}

impl Share {
    /// The share.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether a request belongs to the share. Equal prompts do or don't together, so that candidates are compared within
    /// one version, and what is known of a prompt is found again.
    fn has(self, samples: &[Sample], purpose: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        purpose.hash(&mut hasher);
        match samples.first() {
            Some(Sample::Conversation(conversation)) => hash_turns(conversation.context(), &mut hasher),
            Some(Sample::Pair(pair)) => hash_turns(pair.turns(), &mut hasher),
            Some(Sample::Text(text)) => text.split().map_or(text.text(), |(prompt, _)| prompt).hash(&mut hasher),
            Some(Sample::Tokens(ids)) => ids.hash(&mut hasher),
            None => {}
        }
        // 53 bits are a number from 0 up to 1 exactly.
        let place = (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64;
        place < self.0
    }
}

fn hash_turns(turns: &[karat_rules::domain::Message], hasher: &mut DefaultHasher) {
    for turn in turns {
        turn.role.as_str().hash(hasher);
        turn.content.hash(hasher);
    }
}

/// Another version, and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// The version.
    pub model: ModelName,
    /// Its share of the requests.
    pub share: Share,
}

/// Where the requests of one model go beside the model itself.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// What answers a share of them.
    pub canary: Option<Branch>,
    /// What scores a share of them as well, when there is nothing else to do; nobody waits for it.
    pub shadow: Option<Branch>,
    /// What came of it.
    pub outcome: Arc<Outcome>,
}

impl Traffic {
    /// What answers a request, if not the model itself.
    pub(super) fn answers(&self, samples: &[Sample]) -> Option<&ModelName> {
        let canary = self.canary.as_ref().filter(|canary| canary.share.has(samples, "canary"));
        self.outcome.requests.fetch_add(1, Ordering::Relaxed);
        if canary.is_some() {
            self.outcome.canary_requests.fetch_add(1, Ordering::Relaxed);
        }
        canary.map(|canary| &canary.model)
    }

    /// What scores a request as well.
    pub(super) fn shadows(&self, samples: &[Sample]) -> Option<&ModelName> {
        self.shadow.as_ref().filter(|shadow| shadow.share.has(samples, "shadow")).map(|shadow| &shadow.model)
    }
}

/// What came of a model's traffic since it was set.
#[derive(Debug, Default)]
pub struct Outcome {
    requests: AtomicU64,
    canary_requests: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    differences: Mutex<Differences>,
}

/// How the rewards of a shadow differ from those that were given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Differences {
    /// How many samples were compared.
    pub samples: u64,
    /// The sum of the shadow's rewards less those that were given.
    sum: f64,
    /// The sum of the differences without their signs.
    absolute: f64,
    /// The largest difference without its sign.
    pub largest: f64,
    /// Neighbouring samples of one request whose rewards differ in both versions.
    pub pairs: u64,
    /// Those of them that the two versions rank differently.
    pub swapped: u64,
}

impl Differences {
    /// The shadow's reward less the one that was given, on average; none before the first.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.sum / self.samples as f64)
    }

    /// The same without signs.
    #[must_use]
    pub fn mean_absolute(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.absolute / self.samples as f64)
    }

    fn add(&mut self, given: &[f64], shadow: &[f64]) {
        for (given, shadow) in given.iter().zip(shadow) {
            let difference = shadow - given;
            self.samples += 1;
            self.sum += difference;
            self.absolute += difference.abs();
            self.largest = self.largest.max(difference.abs());
        }
        for (given, shadow) in given.windows(2).zip(shadow.windows(2)) {
            let (given, shadow) = (given[0].total_cmp(&given[1]), shadow[0].total_cmp(&shadow[1]));
            if given.is_ne() && shadow.is_ne() {
                self.pairs += 1;
                self.swapped += u64::from(given != shadow);
            }
        }
    }
}

impl Outcome {
    /// How many requests came, and how many of them the canary answered.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.canary_requests.load(Ordering::Relaxed))
    }

    /// How many requests the shadow left out since too much waited, and on how many it failed.
    #[must_use]
    pub fn missed(&self) -> (u64, u64) {
        (self.dropped.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// How its rewards differ.
    #[must_use]
    pub fn differences(&self) -> Differences {
        *self.differences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the rewards of one request's samples.
    pub(crate) fn compare(&self, given: &[f64], shadow: &[f64]) {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner).add(given, shadow);
    }

    /// A request that the shadow doesn't score.
    pub(crate) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A request on which the shadow failed.
    pub(crate) fn fail_one(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(prompt: &str, response: &str) -> Vec<Sample> {
        vec![Sample::from_prompt(prompt.to_owned(), response.to_owned()).unwrap()]
    }

    #[test]
    fn a_share_of_the_prompts_belongs_to_it_whatever_the_responses() {
        let tenth = Share::try_from(0.1).unwrap();
        let chosen = (0..10_000).filter(|number| tenth.has(&sample(&number.to_string(), "yes"), "canary")).count();
        // Three standard deviations of a binomial distribution.
        assert!((910..=1090).contains(&chosen), "{chosen}");
        for number in 0..100 {
            let prompt = number.to_string();
            assert_eq!(tenth.has(&sample(&prompt, "yes"), "canary"), tenth.has(&sample(&prompt, "no"), "canary"));
            assert!(Share(1.0).has(&sample(&prompt, "yes"), "canary"));
            assert!(!Share(0.0).has(&sample(&prompt, "yes"), "canary"));
        }
        assert!(Share::try_from(1.5).is_err() && Share::try_from(f64::NAN).is_err());
    }

    #[test]
    fn differences_are_those_of_the_samples_and_of_their_order() {
        let mut differences = Differences::default();
        assert_eq!(differences.mean(), None);
        differences.add(&[1.0, 2.0, 3.0], &[1.5, 1.0, 3.5]);
        assert_eq!((differences.samples, differences.pairs, differences.swapped), (3, 2, 1));
        assert_eq!((differences.mean(), differences.mean_absolute()), (Some(0.0), Some(2.0 / 3.0)));
        assert_eq!(differences.largest.to_bits(), 1.0_f64.to_bits());
        differences.add(&[1.0, 1.0], &[0.0, 1.0]);
        assert_eq!((differences.samples, differences.pairs), (5, 2), "what is equal has no order");
    }
}
