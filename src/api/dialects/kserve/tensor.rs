//! Tensors, whatever the transport that brought them.

use super::describe::Datatype;
use crate::api::{dialects::parts::invalid, problem::Problem};

/// A tensor that a client sent.
///
/// Invariant: as many values as the shape says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InputTensor {
    pub(super) name: String,
    shape: Vec<usize>,
    values: InputValues,
}

/// The values of an input, outermost axis first.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum InputValues {
    Bytes(Vec<Vec<u8>>),
    Integers(Vec<i64>),
}

impl InputTensor {
    /// Pairs values with their shape.
    pub(super) fn new(name: String, shape: &[i64], values: InputValues) -> Result<Self, Problem> {
        let axes: Option<Vec<usize>> = shape.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        let count = match &values {
            InputValues::Bytes(values) => values.len(),
            InputValues::Integers(numbers) => numbers.len(),
        };
        let product =
            axes.as_ref().and_then(|axes| axes.iter().try_fold(1_usize, |product, axis| product.checked_mul(*axis)));
        match axes {
            Some(shape) if product == Some(count) => Ok(Self { name, shape, values }),
            _ => Err(invalid(format!(
                "the input {name:?} has {count} values, which don't fill its shape {shape:?}; send as many as the shape \
                 says"
            ))),
        }
    }

    /// One text a sample: shape `[B]` or `[B, 1]`.
    pub(super) fn into_texts(self) -> Result<Vec<String>, Problem> {
        let name = self.name.clone();
        let texts = self.into_bytes()?.into_iter().map(|text| {
            String::from_utf8(text)
                .map_err(|error| invalid(format!("a text of the input {name:?} is not UTF-8: {error}")))
        });
        texts.collect()
    }

    /// One run of bytes a sample: shape `[B]` or `[B, 1]`.
    pub(super) fn into_bytes(self) -> Result<Vec<Vec<u8>>, Problem> {
        match (self.shape.as_slice(), self.values) {
            ([_] | [_, 1], InputValues::Bytes(values)) => Ok(values),
            _ => Err(invalid(format!("the input {:?} must be BYTES of the shape [B] or [B, 1]", self.name))),
        }
    }

    /// One number a sample: shape `[B]` or `[B, 1]`.
    pub(super) fn into_numbers(self) -> Result<Vec<i64>, Problem> {
        match (self.shape.as_slice(), self.values) {
            ([_] | [_, 1], InputValues::Integers(numbers)) => Ok(numbers),
            _ => Err(invalid(format!("the input {:?} must be INT64 of the shape [B] or [B, 1]", self.name))),
        }
    }

    /// One row a sample: shape `[B, S]`.
    pub(super) fn into_rows(self) -> Result<Vec<Vec<i64>>, Problem> {
        match (self.shape.as_slice(), self.values) {
            ([_, width], InputValues::Integers(numbers)) if *width > 0 => {
                Ok(numbers.chunks(*width).map(<[i64]>::to_vec).collect())
            }
            _ => Err(invalid(format!("the input {:?} must be INT64 of the shape [B, S]", self.name))),
        }
    }
}

/// A tensor that is sent back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutputTensor {
    pub(super) name: &'static str,
    pub(super) shape: [usize; 2],
    pub(super) values: OutputValues,
}

/// The values of an output, outermost axis first.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OutputValues {
    Floats(Vec<f32>),
    Booleans(Vec<bool>),
}

impl OutputValues {
    pub(super) fn datatype(&self) -> Datatype {
        match self {
            Self::Floats(_) => Datatype::Fp32,
            Self::Booleans(_) => Datatype::Bool,
        }
    }

    /// The values as the protocol packs them: floats in little-endian order, one byte for a boolean.
    pub(super) fn packed(&self) -> Vec<u8> {
        match self {
            Self::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Booleans(values) => values.iter().map(|value| u8::from(*value)).collect(),
        }
    }
}

/// Texts and files as the protocol packs them: each after its length in bytes, four bytes in little-endian order.
pub(super) fn unpack_bytes(name: &str, mut packed: &[u8]) -> Result<Vec<Vec<u8>>, Problem> {
    let broken = || invalid(format!("the packed texts of the input {name:?} end within a text"));
    let mut texts = Vec::new();
    while !packed.is_empty() {
        let (length, rest) = packed.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| broken())?;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        texts.push(text.to_owned());
        packed = rest;
    }
    Ok(texts)
}

/// Integers as the protocol packs them: in little-endian order, in the width of their type.
pub(super) fn unpack_integers(name: &str, datatype: &str, packed: &[u8]) -> Result<Vec<i64>, Problem> {
    let whole = |width: usize| {
        if packed.len().is_multiple_of(width) {
            Ok(())
        } else {
            Err(invalid(format!("the packed numbers of the input {name:?} end within a number")))
        }
    };
    match datatype {
        "INT64" => {
            whole(8)?;
            Ok(packed.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        }
        "INT32" => {
            whole(4)?;
            Ok(packed.as_chunks::<4>().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect())
        }
        "UINT32" => {
            whole(4)?;
            Ok(packed.as_chunks::<4>().0.iter().map(|bytes| i64::from(u32::from_le_bytes(*bytes))).collect())
        }
        other => Err(unsupported(name, other)),
    }
}

/// The problem with a format that no input has.
pub(super) fn unsupported(name: &str, datatype: &str) -> Problem {
    invalid(format!("the input {name:?} has the type {datatype}; send BYTES, INT64, INT32 or UINT32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_texts_are_as_long_as_they_say() {
        assert_eq!(unpack_bytes("t", b"\x02\0\0\0hi\0\0\0\0").unwrap(), [b"hi".as_slice(), b""]);
        for broken in [b"\x02\0\0".as_slice(), b"\x03\0\0\0hi", b"\xff\xff\xff\xffhi"] {
            assert!(unpack_bytes("t", broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn packed_numbers_are_little_endian() {
        assert_eq!(unpack_integers("t", "INT32", &[1, 0, 0, 0, 255, 255, 255, 255]).unwrap(), [1, -1]);
        assert_eq!(unpack_integers("t", "INT64", &[0, 1, 0, 0, 0, 0, 0, 0]).unwrap(), [256]);
        assert!(unpack_integers("t", "INT64", &[0; 9]).is_err());
        assert!(unpack_integers("t", "FP32", &[0; 4]).is_err());
    }

    #[test]
    fn a_shape_that_values_do_not_fill_is_refused() {
        let make = |shape: &[i64]| InputTensor::new("t".to_owned(), shape, InputValues::Integers(vec![1, 2, 3, 4]));
        assert_eq!(make(&[2, 2]).unwrap().into_rows().unwrap(), [[1, 2], [3, 4]]);
        assert!(make(&[4]).unwrap().into_rows().is_err());
        for shape in [[3, 1].as_slice(), &[-2, -2], &[i64::MAX, i64::MAX]] {
            assert!(make(shape).is_err(), "{shape:?}");
        }
    }
}
