//! Sums and ranges over columns of numbers, several at a time.

/// How many run beside each other: one alone would wait for each of its own additions, and one instruction takes two or
/// four.
const LANES: usize = 4;

/// The sums of several terms over two columns, of what stands at the same place of each.
pub(super) fn sums<X: Copy, Y: Copy, const N: usize>(xs: &[X], ys: &[Y], terms: impl Fn(X, Y) -> [f64; N]) -> [f64; N] {
    let count = xs.len().min(ys.len());
    let (whole_xs, rest_xs) = xs[..count].as_chunks::<LANES>();
    let (whole_ys, rest_ys) = ys[..count].as_chunks::<LANES>();
    // By term and not by lane, so that one instruction adds to several lanes.
    let mut lanes = [[0.0; LANES]; N];
    for (xs, ys) in whole_xs.iter().zip(whole_ys) {
        let terms: [[f64; N]; LANES] = std::array::from_fn(|lane| terms(xs[lane], ys[lane]));
        for (term, sums) in lanes.iter_mut().enumerate() {
            sums.iter_mut().zip(&terms).for_each(|(sum, terms)| *sum += terms[term]);
        }
    }
    let mut all = lanes.map(|sums| sums.iter().sum());
    for (x, y) in rest_xs.iter().zip(rest_ys) {
        all.iter_mut().zip(terms(*x, *y)).for_each(|(sum, term): (&mut f64, f64)| *sum += term);
    }
    all
}

/// The smallest number and the largest, of numbers that are no NaN; of none, infinity and minus infinity.
pub(super) fn range(numbers: &[f64]) -> (f64, f64) {
    // As `f64::min` and `f64::max`, of numbers, in one instruction.
    let lower = |one: f64, other: f64| if other < one { other } else { one };
    let higher = |one: f64, other: f64| if other > one { other } else { one };
    let (whole, rest) = numbers.as_chunks::<LANES>();
    let (mut lowest, mut highest) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    for numbers in whole {
        for lane in 0..LANES {
            lowest[lane] = lower(lowest[lane], numbers[lane]);
            highest[lane] = higher(highest[lane], numbers[lane]);
        }
    }
    let smallest = lowest.into_iter().chain(rest.iter().copied()).fold(f64::INFINITY, lower);
    (smallest, highest.into_iter().chain(rest.iter().copied()).fold(f64::NEG_INFINITY, higher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_counts_wherever_it_stands() {
        for count in 0..14 {
            let numbers: Vec<f64> = (0..count).map(|number| f64::from(number * 7 % 11)).collect();
            let squares: f64 = numbers.iter().map(|number| number * number).sum();
            let [sum, product] = sums(&numbers, &numbers, |x, y| [x, x * y]);
            assert!((sum - numbers.iter().sum::<f64>()).abs() < 1e-12 && (product - squares).abs() < 1e-12);
            let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            assert_eq!(range(&numbers), (least, numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
        }
    }
}
