//! Edits that shouldn't matter come to change rewards more: the policy has found what the reward hangs on.

use super::{Entry, Reading, View, interval::log_ratio};

/// By which the sensitivity must have grown, in logarithms: a quarter.
const LIMIT: f64 = 0.223_143_551_314_209_76;

pub(super) const ENTRY: Entry = Entry {
    name: "sensitivity_rises",
    summary: "Edits of a response that shouldn't matter change its reward more than at the beginning.",
    formula: "v = ln(mean sensitivity now / at the beginning), sensitivity the largest |r(y) - r(y')| over a sample's \
              edits y'; fires where v > ln 1.25",
    source: "ours; the quotient |r(y) - r(y')| / distance: Blondé et al. 2020, Lipschitzness Is All You Need To Tame \
             Off-policy Generative Adversarial Imitation Learning",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let sides = view.sensitivity?;
    let (value, half) = log_ratio(&sides.window.second()?, &sides.reference.second()?)?;
    Reading::above(LIMIT, value, half, [sides.reference.count(), sides.window.count()])
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Sides,
            testing::{assert_close, bucket, moments},
        },
        *,
    };
    use crate::statistics::testing::observation;

    #[test]
    fn the_value_is_the_logarithm_of_the_ratio() {
        let calm = bucket(100, |u| (observation(u), Vec::new()));
        let told = |factor: f64| {
            let before = moments(100, |u| (u, 1.0 + u));
            let window = moments(100, |u| (u, factor * (1.0 + u)));
            let sensitivity = Some(Sides { reference: &before, window: &window });
            read(&View { reference: &calm, window: &calm, judge: None, outcomes: None, sensitivity }).unwrap()
        };
        assert_close(told(2.0).value, 2.0_f64.ln());
        assert!(told(2.0).fires && !told(1.2).fires);
    }
}
