//! Numbers that can't be out of range.
//!
//! A rule whose parameter is one of these has nothing left to check: whoever reads it gets a refusal that says what the
//! number must be, to which the parameter's name is put, and the schema says the same. Choices hold finite numbers
//! alone, so that a plain `f64` in a rule is finite as well.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Which numbers a type holds; never NaN or infinity.
pub trait Range {
    /// The lowest number, or the one just below.
    const LEAST: f64;
    /// Whether [`Range::LEAST`] is one of them.
    const LEAST_INCLUDED: bool = true;
    /// The highest number, or the one just above; the largest `f64` for no bound.
    const MOST: f64 = f64::MAX;
    /// Whether [`Range::MOST`] is one of them.
    const MOST_INCLUDED: bool = true;
    /// What a number must be, after its name: "must lie in 0 to 1".
    const MUST: &'static str;
}

/// A number of a range.
#[derive(Clone, Copy, PartialEq)]
pub struct Number<R>(f64, PhantomData<R>);

/// A number of 0…1: a share, a probability or a level.
pub type Share = Number<ZeroToOne>;
/// A finite number above 0.
pub type Positive = Number<AboveZero>;
/// A finite number of at least 0.
pub type NotNegative = Number<FromZero>;

/// The range of [`Share`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ZeroToOne {}

impl Range for ZeroToOne {
    const LEAST: f64 = 0.0;
    const MOST: f64 = 1.0;
    const MUST: &'static str = "must lie in 0 to 1";
}

/// The range of [`Positive`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AboveZero {}

impl Range for AboveZero {
    const LEAST: f64 = 0.0;
    const LEAST_INCLUDED: bool = false;
    const MUST: &'static str = "must be a finite number above 0";
}

/// The range of [`NotNegative`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FromZero {}

impl Range for FromZero {
    const LEAST: f64 = 0.0;
    const MUST: &'static str = "must be a finite number of at least 0";
}

impl<R: Range> Number<R> {
    /// Takes a number of the range.
    ///
    /// # Errors
    /// What it must be and what it is, to be put after its name.
    pub fn new(value: f64) -> Result<Self, String> {
        if Self::holds(value) { Ok(Self(value, PhantomData)) } else { Err(format!("{}, found {value}", R::MUST)) }
    }

    /// As [`Number::new`], for a number that is no parameter of its own.
    ///
    /// # Errors
    /// What `name` must be and what it is.
    pub fn named(name: &str, value: f64) -> Result<Self, String> {
        Self::new(value).map_err(|reason| format!("{name} {reason}"))
    }

    /// A number that the code itself names, such as a default. In a `const`, one out of range doesn't compile.
    #[must_use]
    pub const fn constant(value: f64) -> Self {
        assert!(Self::holds(value), "the number is out of its range");
        Self(value, PhantomData)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64
    where
        R: Copy,
    {
        self.0
    }

    const fn holds(value: f64) -> bool {
        let above = if R::LEAST_INCLUDED { value >= R::LEAST } else { value > R::LEAST };
        let below = if R::MOST_INCLUDED { value <= R::MOST } else { value < R::MOST };
        above && below
    }
}

impl Default for Share {
    fn default() -> Self {
        const { Self::constant(0.0) }
    }
}

impl Default for NotNegative {
    fn default() -> Self {
        const { Self::constant(0.0) }
    }
}

impl<R> fmt::Debug for Number<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R> Serialize for Number<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, R: Range> Deserialize<'de> for Number<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<R: Range> JsonSchema for Number<R> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "number", "format": "double" });
        schema.insert(if R::LEAST_INCLUDED { "minimum" } else { "exclusiveMinimum" }.to_owned(), R::LEAST.into());
        if R::MOST < f64::MAX {
            schema.insert(if R::MOST_INCLUDED { "maximum" } else { "exclusiveMaximum" }.to_owned(), R::MOST.into());
        }
        schema
    }
}

/// How many of something, at least one; one unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "usize", into = "usize")]
#[schemars(inline)]
pub struct Count(#[schemars(range(min = 1))] usize);

impl Count {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl Default for Count {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<usize> for Count {
    type Error = String;

    fn try_from(count: usize) -> Result<Self, String> {
        if count > 0 { Ok(Self(count)) } else { Err(format!("must be at least 1, found {count}")) }
    }
}

impl From<Count> for usize {
    fn from(count: Count) -> Self {
        count.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_in_or_out_as_their_range_says() {
        assert!(Share::new(0.0).is_ok() && Share::new(1.0).is_ok());
        assert!(NotNegative::new(0.0).is_ok() && Positive::new(f64::MIN_POSITIVE).is_ok());
        assert_eq!(Positive::new(0.0).unwrap_err(), "must be a finite number above 0, found 0");
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, 1.5] {
            assert!(Share::new(bad).is_err(), "{bad}");
            assert!(bad > 1.0 && bad.is_finite() || NotNegative::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_schema_says_what_is_refused() {
        let schema = |schema: Schema| schema.to_value();
        let generator = &mut SchemaGenerator::default();
        let number = |bounds: &str| serde_json::from_str::<serde_json::Value>(bounds).unwrap();
        assert_eq!(schema(Share::json_schema(generator))["maximum"], number("1.0"));
        assert_eq!(schema(Positive::json_schema(generator))["exclusiveMinimum"], number("0.0"));
        assert_eq!(schema(NotNegative::json_schema(generator)).get("maximum"), None);
        assert!(serde_json::from_str::<Count>("0").is_err());
    }
}
