//! The number formats of keys and values, so that what is done with them is written once for all.

use half::{bf16, f16};

use super::Numbers;

/// A number that keys and values are made of.
pub(crate) trait Number: Copy + 'static {
    const ZERO: Self;

    /// The numbers, if they have this format.
    fn of(numbers: &Numbers) -> Option<&[Self]>;

    fn wrap(numbers: Vec<Self>) -> Numbers;
}

macro_rules! numbers {
    ($($number:ident, $format:ident, $zero:expr;)*) => {$(
        impl Number for $number {
            const ZERO: Self = $zero;

            fn of(numbers: &Numbers) -> Option<&[Self]> {
                if let Numbers::$format(numbers) = numbers { Some(numbers) } else { None }
            }

            fn wrap(numbers: Vec<Self>) -> Numbers {
                Numbers::$format(numbers.into())
            }
        }
    )*};
}

numbers! {
    f32, Float32, 0.0;
    f16, Float16, f16::ZERO;
    bf16, Bfloat16, bf16::ZERO;
}
