//! Keys and values that grow token by token, for texts that are being written.

use half::{bf16, f16};
use karat_rules::domain::ElementType;

use super::{DecoderShape, KeyValues, Number, Numbers};

/// Where the numbers of a token stand: `lines` lines of `tokens` tokens of `width` numbers each.
#[derive(Clone, Copy)]
struct Lines {
    lines: usize,
    width: usize,
}

impl KeyValues {
    /// Zeros for `tokens` tokens: places to be filled.
    #[must_use]
    pub fn zeros(shape: &DecoderShape, tokens: usize) -> Self {
        let count = shape.numbers_per_token() * tokens;
        let numbers = match shape.element {
            ElementType::Float16 => zeros::<f16>(count),
            ElementType::Bfloat16 => zeros::<bf16>(count),
            _ => zeros::<f32>(count),
        };
        Self { tokens, numbers }
    }

    /// The first `tokens` tokens, with zeros behind them where there are fewer.
    #[must_use]
    pub fn resized(&self, shape: &DecoderShape, tokens: usize) -> Self {
        let mut resized = Self::zeros(shape, tokens);
        resized.copy(shape, 0, self, 0, tokens.min(self.tokens));
        resized
    }

    /// Overwrites the token at `place` with the token at `from` of other keys and values of the same model. Nothing is
    /// copied where either isn't there.
    pub fn copy_token(&mut self, shape: &DecoderShape, place: usize, other: &Self, from: usize) {
        if place < self.tokens && from < other.tokens {
            self.copy(shape, place, other, from, 1);
        }
    }

    /// Whether every number is finite.
    #[must_use]
    pub(crate) fn is_finite(&self) -> bool {
        match &self.numbers {
            Numbers::Float32(numbers) => numbers.iter().all(|number| number.is_finite()),
            Numbers::Float16(numbers) => numbers.iter().all(|number| number.is_finite()),
            Numbers::Bfloat16(numbers) => numbers.iter().all(|number| number.is_finite()),
        }
    }

    fn copy(&mut self, shape: &DecoderShape, place: usize, other: &Self, from: usize, count: usize) {
        let lines = Lines { lines: 2 * shape.layers * shape.kv_heads, width: shape.head_dim };
        let (to, from) = ((self.tokens, place), (other.tokens, from));
        match (&mut self.numbers, &other.numbers) {
            (Numbers::Float32(ours), Numbers::Float32(theirs)) => lines.copy(ours, to, theirs, from, count),
            (Numbers::Float16(ours), Numbers::Float16(theirs)) => lines.copy(ours, to, theirs, from, count),
            (Numbers::Bfloat16(ours), Numbers::Bfloat16(theirs)) => lines.copy(ours, to, theirs, from, count),
            // Keys and values of one model have one format.
            _ => {}
        }
    }
}

impl Lines {
    /// Copies `count` tokens; each side is told how many tokens a line has and which of them is the first.
    fn copy<T: Copy>(self, ours: &mut [T], to: (usize, usize), theirs: &[T], from: (usize, usize), count: usize) {
        for line in 0..self.lines {
            let at = |(tokens, first): (usize, usize)| {
                let start = (line * tokens + first) * self.width;
                start..start + count * self.width
            };
            if let (Some(ours), Some(theirs)) = (ours.get_mut(at(to)), theirs.get(at(from))) {
                ours.copy_from_slice(theirs);
            }
        }
    }
}

fn zeros<T: Number>(count: usize) -> Numbers {
    T::wrap(vec![T::ZERO; count])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: DecoderShape =
        DecoderShape { layers: 1, kv_heads: 2, head_dim: 1, context: 10, element: ElementType::Float32 };

    fn values(tokens: usize, numbers: &[f32]) -> KeyValues {
        KeyValues::new(&SHAPE, tokens, Numbers::Float32(numbers.into())).unwrap()
    }

    #[test]
    fn tokens_keep_their_numbers_when_the_memory_grows() {
        let two = values(2, &[1.0, 2.0, 10.0, 20.0, 3.0, 4.0, 30.0, 40.0]);
        let three = two.resized(&SHAPE, 3);
        let expected = [1.0, 2.0, 0.0, 10.0, 20.0, 0.0, 3.0, 4.0, 0.0, 30.0, 40.0, 0.0];
        assert_eq!(three, values(3, &expected));
        assert_eq!(three.resized(&SHAPE, 2), two);
        let mut changed = three.clone();
        changed.copy_token(&SHAPE, 2, &two, 0);
        assert_eq!(changed, values(3, &[1.0, 2.0, 1.0, 10.0, 20.0, 10.0, 3.0, 4.0, 3.0, 30.0, 40.0, 30.0]));
        changed.copy_token(&SHAPE, 3, &two, 0);
        assert!(changed.is_finite() && !values(1, &[0.0, f32::NAN, 0.0, 0.0]).is_finite());
    }
}
