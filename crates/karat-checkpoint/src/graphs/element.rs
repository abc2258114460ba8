//! The number formats that a graph may compute in.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use karat_onnx::tensor_proto::DataType;

/// A number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Single precision.
    Float32,
    /// Half precision.
    Float16,
    /// The upper half of single precision.
    Bfloat16,
}

/// Memory for numbers of one format.
#[derive(Debug)]
pub enum NumbersMut<'a> {
    /// Single precision.
    Float32(&'a mut [f32]),
    /// Half precision.
    Float16(&'a mut [f16]),
    /// The upper half of single precision.
    Bfloat16(&'a mut [bf16]),
}

impl<'a> NumbersMut<'a> {
    /// Its format.
    pub(crate) fn element(&self) -> Element {
        match self {
            Self::Float32(_) => Element::Float32,
            Self::Float16(_) => Element::Float16,
            Self::Bfloat16(_) => Element::Bfloat16,
        }
    }

    /// How many numbers there is room for.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Float32(numbers) => numbers.len(),
            Self::Float16(numbers) => numbers.len(),
            Self::Bfloat16(numbers) => numbers.len(),
        }
    }

    /// The same memory in pieces of so many numbers, the last one perhaps shorter.
    pub(crate) fn pieces(self, size: usize) -> Vec<Self> {
        match self {
            Self::Float32(numbers) => numbers.chunks_mut(size).map(Self::Float32).collect(),
            Self::Float16(numbers) => numbers.chunks_mut(size).map(Self::Float16).collect(),
            Self::Bfloat16(numbers) => numbers.chunks_mut(size).map(Self::Bfloat16).collect(),
        }
    }

    /// Takes as many finite numbers, rounded to the format.
    ///
    /// # Errors
    /// With the first that the format doesn't hold.
    pub(crate) fn round(&mut self, numbers: &[f32]) -> Result<(), f32> {
        let odd = match self {
            Self::Float32(into) => {
                into.copy_from_slice(numbers);
                None
            }
            Self::Float16(into) => {
                into.convert_from_f32_slice(numbers);
                into.iter().position(|number| !number.is_finite())
            }
            Self::Bfloat16(into) => {
                into.convert_from_f32_slice(numbers);
                into.iter().position(|number| !number.is_finite())
            }
        };
        odd.map_or(Ok(()), |odd| Err(numbers[odd]))
    }
}

impl Element {
    /// What ONNX calls it.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Float32 => DataType::Float,
            Self::Float16 => DataType::Float16,
            Self::Bfloat16 => DataType::Bfloat16,
        }
    }

    /// What names end with that exist in several formats.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Float32 => "",
            Self::Float16 => ":float16",
            Self::Bfloat16 => ":bfloat16",
        }
    }

    /// Numbers as a graph's file holds them.
    pub(super) fn bytes(self, numbers: &[f32]) -> Vec<u8> {
        match self {
            Self::Float32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Float16 => numbers.iter().flat_map(|number| f16::from_f32(*number).to_le_bytes()).collect(),
            Self::Bfloat16 => numbers.iter().flat_map(|number| bf16::from_f32(*number).to_le_bytes()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_never_become_infinite() {
        let numbers = [1.0, 0.1, -3.0e4];
        let mut half = [f16::ZERO; 3];
        NumbersMut::Float16(&mut half).round(&numbers).unwrap();
        assert_eq!(half, [f16::ONE, f16::from_bits(0x2e66), f16::from_f32(-3.0e4)]);
        let mut brain = [bf16::ZERO; 3];
        NumbersMut::Bfloat16(&mut brain).round(&numbers).unwrap();
        assert_eq!(brain, [bf16::ONE, bf16::from_bits(0x3dcd), bf16::from_f32(-3.0e4)]);
        assert_eq!(NumbersMut::Float16(&mut half[..2]).round(&[0.0, 7.0e4]), Err(7.0e4));
        assert!(NumbersMut::Bfloat16(&mut brain[..2]).round(&[0.0, 7.0e4]).is_ok());
    }
}
