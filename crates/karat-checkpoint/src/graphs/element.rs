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

/// Numbers of one format.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// Single precision.
    Float32(Vec<f32>),
    /// Half precision.
    Float16(Vec<f16>),
    /// The upper half of single precision.
    Bfloat16(Vec<bf16>),
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

    /// Finite numbers rounded to this format.
    ///
    /// # Errors
    /// With the first that the format doesn't hold.
    pub(crate) fn round(self, numbers: Vec<f32>) -> Result<Numbers, f32> {
        let rounded = match self {
            Self::Float32 => return Ok(Numbers::Float32(numbers)),
            Self::Float16 => {
                let mut rounded = vec![f16::ZERO; numbers.len()];
                rounded.convert_from_f32_slice(&numbers);
                let odd = rounded.iter().position(|number| !number.is_finite());
                odd.map_or(Ok(Numbers::Float16(rounded)), Err)
            }
            Self::Bfloat16 => {
                let mut rounded = vec![bf16::ZERO; numbers.len()];
                rounded.convert_from_f32_slice(&numbers);
                let odd = rounded.iter().position(|number| !number.is_finite());
                odd.map_or(Ok(Numbers::Bfloat16(rounded)), Err)
            }
        };
        rounded.map_err(|odd| numbers[odd])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_never_become_infinite() {
        let numbers = || vec![1.0, 0.1, -3.0e4];
        let half = Element::Float16.round(numbers()).unwrap();
        assert_eq!(half, Numbers::Float16(vec![f16::ONE, f16::from_bits(0x2e66), f16::from_f32(-3.0e4)]));
        let brain = Element::Bfloat16.round(numbers()).unwrap();
        assert_eq!(brain, Numbers::Bfloat16(vec![bf16::ONE, bf16::from_bits(0x3dcd), bf16::from_f32(-3.0e4)]));
        assert_eq!(Element::Float16.round(vec![0.0, 7.0e4]), Err(7.0e4));
        assert!(Element::Bfloat16.round(vec![0.0, 7.0e4]).is_ok());
    }
}
