//! Who has the session next.

use std::collections::VecDeque;

use crate::Purpose;

/// Those who wait for a turn, and who has it. Where some want to score and others to write, they take turns; among those
/// of one purpose, the first to come is the first to go. So nobody starves, however many there are of the others.
#[derive(Debug, Default)]
pub(super) struct Queue {
    next: u64,
    scoring: VecDeque<u64>,
    writing: VecDeque<u64>,
    serving: Option<u64>,
    /// Whether the last turn was one that wrote.
    wrote: bool,
}

impl Queue {
    /// Waits in line; gives the number that will be served.
    pub(super) fn enter(&mut self, purpose: Purpose) -> u64 {
        let number = self.next;
        self.next += 1;
        match purpose {
            Purpose::Scoring => self.scoring.push_back(number),
            Purpose::Writing => self.writing.push_back(number),
        }
        if self.serving.is_none() {
            self.advance();
        }
        number
    }

    /// Whether that number's turn has come.
    pub(super) fn serves(&self, number: u64) -> bool {
        self.serving == Some(number)
    }

    /// Ends a turn.
    pub(super) fn leave(&mut self) {
        self.serving = None;
        self.advance();
    }

    /// Whether somebody has a turn.
    pub(super) fn is_busy(&self) -> bool {
        self.serving.is_some()
    }

    /// How many have a turn or wait for one.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.scoring.len() + self.writing.len() + usize::from(self.is_busy())
    }

    fn advance(&mut self) {
        let writes = if self.wrote { self.scoring.is_empty() } else { !self.writing.is_empty() };
        self.serving = if writes { self.writing.pop_front() } else { self.scoring.pop_front() };
        if self.serving.is_some() {
            self.wrote = writes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn everyone_is_served_once_in_order_and_neither_purpose_waits_for_two_of_the_other(
            steps in vec(prop_oneof![Just(None), Just(Some(Purpose::Scoring)), Just(Some(Purpose::Writing))], 1..200),
        ) {
            let mut queue = Queue::default();
            // Who entered: the number, the purpose, and how often others were served since, by purpose.
            let mut waiting: Vec<(u64, Purpose, [usize; 2])> = Vec::new();
            let mut serving = None;
            let entered = steps.len();
            for step in steps.into_iter().chain(std::iter::repeat_n(None, entered)) {
                match step {
                    Some(purpose) => waiting.push((queue.enter(purpose), purpose, [0, 0])),
                    None if serving.take().is_some() => queue.leave(),
                    None => {}
                }
                if serving.is_some() {
                    continue;
                }
                let served: Vec<usize> = (0..waiting.len()).filter(|at| queue.serves(waiting[*at].0)).collect();
                prop_assert_eq!(served.len(), usize::from(!waiting.is_empty()), "the session never rests");
                let Some(at) = served.first() else { continue };
                let (number, purpose, others) = waiting.remove(*at);
                let earlier = waiting.iter().any(|(other, of, _)| *of == purpose && *other < number);
                prop_assert!(!earlier, "those of one purpose go in order");
                let of_other = others[usize::from(purpose == Purpose::Scoring)];
                let of_own = others[usize::from(purpose == Purpose::Writing)];
                prop_assert!(of_other <= of_own + 1, "{of_other} of the other purpose went before");
                for (_, _, others) in &mut waiting {
                    others[usize::from(purpose == Purpose::Writing)] += 1;
                }
                serving = Some(number);
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
