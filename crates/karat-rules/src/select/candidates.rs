//! What is selected from.

use crate::domain::Reward;

/// The candidates for one prompt: their rewards, and what else a request tells of them.
///
/// Invariants: at least one candidate; every list has one entry a candidate; objectives and embeddings are equally long
/// for all candidates, not empty and finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    rewards: Vec<f64>,
    objectives: Option<Vec<Vec<f64>>>,
    answers: Option<Vec<String>>,
    texts: Option<Vec<String>>,
    embeddings: Option<Vec<Vec<f64>>>,
}

/// Why lists don't make candidates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CandidatesError {
    /// A list has the wrong length.
    #[error("there are {candidates} candidates and {found} {what}; send one for each")]
    Count {
        /// What the list holds.
        what: &'static str,
        /// How many candidates there are.
        candidates: usize,
        /// How many entries the list has.
        found: usize,
    },
    /// Vectors differ in length, are empty or hold what is no number.
    #[error("the {what} of candidate {index} must be as long as the first one's, not empty, and finite")]
    Uneven {
        /// What the vectors are.
        what: &'static str,
        /// The candidate.
        index: usize,
    },
}

/// What a request offers beside rewards; known before anything is scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Available {
    /// Whether each candidate has several objectives.
    pub objectives: bool,
    /// Whether each candidate's final answer is known.
    pub answers: bool,
    /// Whether each candidate's text is known.
    pub texts: bool,
    /// Whether each candidate has an embedding.
    pub embeddings: bool,
}

impl Candidates {
    /// Takes the candidates' rewards; `None` when there are none.
    #[must_use]
    pub fn new(rewards: &[Reward]) -> Option<Self> {
        let rewards: Vec<f64> = rewards.iter().map(|reward| reward.get()).collect();
        let some = !rewards.is_empty();
        some.then_some(Self { rewards, objectives: None, answers: None, texts: None, embeddings: None })
    }

    /// Adds each candidate's objectives, for fronts.
    ///
    /// # Errors
    /// When there isn't one vector a candidate, or the vectors differ in length.
    pub fn with_objectives(mut self, objectives: Vec<Vec<f64>>) -> Result<Self, CandidatesError> {
        self.objectives = Some(self.even("objectives", objectives)?);
        Ok(self)
    }

    /// Adds each candidate's final answer, for votes.
    ///
    /// # Errors
    /// When there isn't one a candidate.
    pub fn with_answers(mut self, answers: Vec<String>) -> Result<Self, CandidatesError> {
        self.count("answers", answers.len())?;
        self.answers = Some(answers);
        Ok(self)
    }

    /// Adds each candidate's text, for distances.
    ///
    /// # Errors
    /// When there isn't one a candidate.
    pub fn with_texts(mut self, texts: Vec<String>) -> Result<Self, CandidatesError> {
        self.count("texts", texts.len())?;
        self.texts = Some(texts);
        Ok(self)
    }

    /// Adds each candidate's embedding, for distances.
    ///
    /// # Errors
    /// When there isn't one a candidate, or they differ in length.
    pub fn with_embeddings(mut self, embeddings: Vec<Vec<f64>>) -> Result<Self, CandidatesError> {
        self.embeddings = Some(self.even("embeddings", embeddings)?);
        Ok(self)
    }

    /// The rewards.
    #[must_use]
    pub fn rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// Each candidate's objectives.
    #[must_use]
    pub fn objectives(&self) -> Option<&[Vec<f64>]> {
        self.objectives.as_deref()
    }

    /// Each candidate's final answer.
    #[must_use]
    pub fn answers(&self) -> Option<&[String]> {
        self.answers.as_deref()
    }

    /// Each candidate's text.
    #[must_use]
    pub fn texts(&self) -> Option<&[String]> {
        self.texts.as_deref()
    }

    /// Each candidate's embedding.
    #[must_use]
    pub fn embeddings(&self) -> Option<&[Vec<f64>]> {
        self.embeddings.as_deref()
    }

    /// What is there beside rewards.
    #[must_use]
    pub fn available(&self) -> Available {
        Available {
            objectives: self.objectives.is_some(),
            answers: self.answers.is_some(),
            texts: self.texts.is_some(),
            embeddings: self.embeddings.is_some(),
        }
    }

    /// The candidates at `kept`, in that order; `None` when there are none.
    pub(super) fn only(&self, kept: &[usize]) -> Option<Self> {
        fn pick<T: Clone>(list: Option<&Vec<T>>, kept: &[usize]) -> Option<Vec<T>> {
            list.map(|list| kept.iter().map(|index| list[*index].clone()).collect())
        }
        (!kept.is_empty()).then(|| Self {
            rewards: kept.iter().map(|index| self.rewards[*index]).collect(),
            objectives: pick(self.objectives.as_ref(), kept),
            answers: pick(self.answers.as_ref(), kept),
            texts: pick(self.texts.as_ref(), kept),
            embeddings: pick(self.embeddings.as_ref(), kept),
        })
    }

    /// The indices whose rewards are within `tolerance` of the best, ascending.
    pub(super) fn tied(&self, tolerance: f64) -> Vec<usize> {
        let best = self.rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (0..self.rewards.len()).filter(|index| best - self.rewards[*index] <= tolerance).collect()
    }

    fn count(&self, what: &'static str, found: usize) -> Result<(), CandidatesError> {
        let candidates = self.rewards.len();
        if found == candidates { Ok(()) } else { Err(CandidatesError::Count { what, candidates, found }) }
    }

    fn even(&self, what: &'static str, vectors: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>, CandidatesError> {
        self.count(what, vectors.len())?;
        let length = vectors[0].len();
        let bad =
            |vector: &Vec<f64>| vector.len() != length || vector.is_empty() || vector.iter().any(|v| !v.is_finite());
        match vectors.iter().position(bad) {
            Some(index) => Err(CandidatesError::Uneven { what, index }),
            None => Ok(vectors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::candidates, *};

    #[test]
    fn lists_must_fit_the_candidates() {
        assert_eq!(Candidates::new(&[]), None);
        let two = candidates(&[1.0, 2.0]);
        assert!(two.clone().with_answers(vec!["4".to_owned()]).is_err());
        assert!(two.clone().with_objectives(vec![vec![1.0], vec![1.0, 2.0]]).is_err());
        assert!(two.clone().with_objectives(vec![vec![], vec![]]).is_err());
        assert!(two.clone().with_embeddings(vec![vec![1.0], vec![f64::NAN]]).is_err());
        assert!(two.with_texts(vec!["a".to_owned(), "a".to_owned()]).is_ok());
    }
}
