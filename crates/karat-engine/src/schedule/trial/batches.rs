//! Which texts share the passes of a trial.

/// The batches of a trial, each a list of texts by their index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batches<'a> {
    /// How long each text is.
    pub(super) lengths: &'a [usize],
    /// The most samples of a batch.
    pub(super) samples: usize,
    /// The most positions of a batch, padding included.
    pub(super) tokens: usize,
}

impl Batches<'_> {
    /// Texts of one length: in two orders, and as many as a batch may hold.
    pub(super) fn alike(&self) -> Vec<Vec<usize>> {
        let with = |length: &usize| self.lengths.iter().filter(|other| *other == length).count();
        let length = self.lengths.iter().max_by_key(|length| with(length));
        let texts: Vec<usize> = (0..self.lengths.len()).filter(|text| Some(&self.lengths[*text]) == length).collect();
        self.of(&texts)
    }

    /// Texts of all lengths, likewise.
    pub(super) fn mixed(&self) -> Vec<Vec<usize>> {
        self.of(&(0..self.lengths.len()).collect::<Vec<_>>())
    }

    fn of(&self, texts: &[usize]) -> Vec<Vec<usize>> {
        let longest = texts.iter().map(|text| self.lengths[*text]).max().unwrap_or(1);
        let fitting = (self.tokens / longest.max(1)).min(self.samples);
        let backwards: Vec<usize> = texts.iter().rev().copied().collect();
        let large: Vec<usize> =
            backwards.iter().copied().cycle().take(if texts.is_empty() { 0 } else { fitting }).collect();
        let few = |texts: &[usize]| texts.iter().copied().take(fitting).collect::<Vec<_>>();
        let mut batches = vec![few(texts), few(&backwards)];
        if fitting > texts.len() {
            batches.push(large);
        }
        batches.retain(|batch| batch.len() > 1);
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_two_orders_and_as_many_as_fit() {
        let batches = Batches { lengths: &[4, 7, 7, 9], samples: 5, tokens: 64 };
        assert_eq!(batches.alike(), [vec![1, 2], vec![2, 1], vec![2, 1, 2, 1, 2]]);
        assert_eq!(batches.mixed(), [vec![0, 1, 2, 3], vec![3, 2, 1, 0], vec![3, 2, 1, 0, 3]]);
        let few = Batches { samples: 32, tokens: 20, ..batches };
        assert_eq!(few.mixed(), [vec![0, 1], vec![3, 2]], "two of nine tokens fit");
        assert!(Batches { samples: 1, ..batches }.mixed().is_empty());
        assert!(Batches { lengths: &[], ..batches }.alike().is_empty());
    }
}
