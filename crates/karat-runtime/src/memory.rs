//! How large a batch the memory takes, learned from passes that ran out of it.
//!
//! No formula tells beforehand: attention, the runtime's arena, other models and other programs all take their share.
//! So the bound starts at a budget, halves with a pass that doesn't fit, and is felt upwards again once many passes close
//! to it did fit.

/// The most positions, padding included, that a batch of several samples may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    budget: usize,
    bound: usize,
    /// Passes close to the bound since it was last changed, none of which ran out.
    fitting: usize,
}

/// After so many passes close to the bound it is raised a little: memory that another program held comes back, and a
/// bound that is too high costs one pass that has to be split.
const TRUST: usize = 256;

impl MemoryBound {
    /// A bound that nothing is known against.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self { budget, bound: budget, fitting: 0 }
    }

    /// The most positions that are believed to fit.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// A pass of so many positions ran out of memory. Gives the bound if that lowers it.
    pub fn ran_out(&mut self, positions: usize) -> Option<usize> {
        self.fitting = 0;
        let halved = (positions / 2).max(1);
        (halved < self.bound).then(|| {
            self.bound = halved;
            halved
        })
    }

    /// A pass of so many positions had enough memory. Gives the bound if that raises it.
    pub fn fitted(&mut self, positions: usize) -> Option<usize> {
        if self.bound == self.budget || positions < self.bound - self.bound / 4 {
            return None;
        }
        self.fitting += 1;
        (self.fitting >= TRUST).then(|| {
            self.fitting = 0;
            self.bound = self.bound.saturating_add(self.bound / 8 + 1).min(self.budget);
            self.bound
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_does_not_fit_halves_the_bound() {
        let mut bound = MemoryBound::new(1000);
        assert_eq!(bound.ran_out(1000), Some(500));
        assert_eq!(bound.ran_out(3000), None, "a long sample alone says nothing about smaller batches");
        assert_eq!(bound.bound, 500);
        assert_eq!(bound.ran_out(1), Some(1), "never 0: a batch of one sample has to be possible");
    }

    #[test]
    fn the_bound_rises_only_after_many_passes_close_to_it() {
        let mut bound = MemoryBound::new(1000);
        assert!((0..10 * TRUST).all(|_| bound.fitted(1000).is_none()), "never beyond the budget");
        bound.ran_out(1600);
        assert!((0..10 * TRUST).all(|_| bound.fitted(100).is_none()), "small passes prove nothing");
        assert!((1..TRUST).all(|_| bound.fitted(800).is_none()));
        assert_eq!(bound.fitted(800), Some(901));
        bound.ran_out(901);
        assert!((1..TRUST).all(|_| bound.fitted(450).is_none()), "counted anew");
        assert_eq!(bound.fitted(450), Some(507));
    }
}
