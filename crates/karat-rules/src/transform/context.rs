//! What a transform may need beyond the rewards themselves, and what a request brings.

/// What a transform must be given beyond numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// How many samples of one prompt must be transformed together; 0 and 1 mean that one will do.
    pub group: usize,
    /// Rewards of other responses to the prompt.
    pub references: References,
    /// How often each response was seen.
    pub counts: bool,
    /// The margin of each response over another.
    pub margins: bool,
    /// Whether each response reached the right result.
    pub successes: bool,
}

impl Needs {
    /// Other samples of the prompt, to compare with.
    pub(super) const GROUP: Self =
        Self { group: 2, references: References::None, counts: false, margins: false, successes: false };
}

/// How many reference rewards a transform takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum References {
    /// None.
    #[default]
    None,
    /// Exactly one, such as a canned response's.
    One,
    /// A sample of the reference policy, at least this many.
    AtLeast(usize),
}

/// What the signals and the context will bring: known when a request is read, before anything is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Whether the rewards have steps.
    pub steps: bool,
    /// How many samples of one prompt are transformed together.
    pub group: usize,
    /// How many reference rewards there are.
    pub references: usize,
    /// Whether there is a count for each sample.
    pub counts: bool,
    /// Whether there is a margin for each sample.
    pub margins: bool,
    /// Whether the success of each sample is known.
    pub successes: bool,
}

impl Available {
    /// One sample at a time and nothing beside its reward: what a manifest's own chain can count on.
    #[must_use]
    pub fn alone(steps: bool) -> Self {
        Self { steps, group: 1, references: 0, counts: false, margins: false, successes: false }
    }

    /// What is missing of `needs` and how to send it; `None` when nothing is.
    #[must_use]
    pub fn lacks(&self, needs: Needs) -> Option<String> {
        if self.group < needs.group {
            return Some(format!(
                "at least {} responses to one prompt, and there is {}; send them as the candidates of one request",
                needs.group, self.group
            ));
        }
        match needs.references {
            References::None => {}
            References::One if self.references == 1 => {}
            References::One => {
                return Some(format!(
                    "one reference reward, and there are {}; send one in references",
                    self.references
                ));
            }
            References::AtLeast(least) if self.references >= least => {}
            References::AtLeast(least) => {
                return Some(format!(
                    "at least {least} reference rewards of the prompt, and there are {}; send them in references",
                    self.references
                ));
            }
        }
        let absent = [
            (needs.counts && !self.counts, "how often each response was seen; send counts"),
            (needs.margins && !self.margins, "the margin of each response; send margins"),
            (needs.successes && !self.successes, "whether each response is correct; send successes"),
        ];
        absent.into_iter().find_map(|(missing, what)| missing.then(|| what.to_owned()))
    }
}

/// What a request brings beside its samples. Lists have one number a sample, in the samples' order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    references: Vec<f64>,
    counts: Vec<f64>,
    margins: Vec<f64>,
    successes: Vec<bool>,
}

/// Why a number can't be part of a context.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ContextError {
    /// NaN or infinity.
    #[error("{0} is not a finite number")]
    NonFinite(f64),
    /// A response that is here has been seen at least once.
    #[error("a count is 0; count the response itself, so that the first time is 1")]
    NeverSeen,
}

impl Context {
    /// Adds rewards of other responses to the prompt, on the scale that the chain's rewards have where they are used.
    ///
    /// # Errors
    /// When one is not finite.
    pub fn with_references(mut self, references: Vec<f64>) -> Result<Self, ContextError> {
        self.references = finite(references)?;
        Ok(self)
    }

    /// Adds how often each response was seen, this time included.
    ///
    /// # Errors
    /// When one is 0.
    pub fn with_counts(mut self, counts: &[u64]) -> Result<Self, ContextError> {
        if counts.contains(&0) {
            return Err(ContextError::NeverSeen);
        }
        self.counts = counts.iter().map(|count| *count as f64).collect();
        Ok(self)
    }

    /// Adds the margin of each response over another.
    ///
    /// # Errors
    /// When one is not finite.
    pub fn with_margins(mut self, margins: Vec<f64>) -> Result<Self, ContextError> {
        self.margins = finite(margins)?;
        Ok(self)
    }

    /// Adds whether each response reached the right result.
    #[must_use]
    pub fn with_successes(mut self, successes: Vec<bool>) -> Self {
        self.successes = successes;
        self
    }

    /// What of it belongs to some of the samples: those at `places`, in that order.
    #[must_use]
    pub fn of(&self, places: &[usize]) -> Self {
        fn at<T: Copy>(list: &[T], places: &[usize]) -> Vec<T> {
            places.iter().filter_map(|place| list.get(*place).copied()).collect()
        }
        Self {
            references: self.references.clone(),
            counts: at(&self.counts, places),
            margins: at(&self.margins, places),
            successes: at(&self.successes, places),
        }
    }

    /// What this context and a group of `group` samples bring. A list that doesn't have one number a sample counts as
    /// absent.
    #[must_use]
    pub fn available(&self, steps: bool, group: usize) -> Available {
        Available {
            steps,
            group,
            references: self.references.len(),
            counts: self.counts.len() == group,
            margins: self.margins.len() == group,
            successes: self.successes.len() == group,
        }
    }

    /// Rewards of other responses to the prompt.
    #[must_use]
    pub fn references(&self) -> &[f64] {
        &self.references
    }

    /// How often each response was seen, at least once.
    #[must_use]
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// The margin of each response.
    #[must_use]
    pub fn margins(&self) -> &[f64] {
        &self.margins
    }

    /// Whether each response is correct.
    #[must_use]
    pub fn successes(&self) -> &[bool] {
        &self.successes
    }
}

fn finite(values: Vec<f64>) -> Result<Vec<f64>, ContextError> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(bad) => Err(ContextError::NonFinite(*bad)),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_holds_only_what_can_be_computed_with() {
        assert!(Context::default().with_references(vec![1.0, f64::NAN]).is_err());
        assert!(Context::default().with_margins(vec![f64::INFINITY]).is_err());
        assert_eq!(Context::default().with_counts(&[1, 0]), Err(ContextError::NeverSeen));
        let context = Context::default().with_counts(&[1, 2]).unwrap();
        assert!(context.available(false, 2).counts);
        assert!(!context.available(false, 3).counts);
        let of_two = Context::default().with_margins(vec![1.0, 2.0, 3.0]).unwrap().of(&[0, 2]);
        assert_eq!(of_two.margins(), [1.0, 3.0]);
    }
}
