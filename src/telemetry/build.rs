//! Which build is running.

use schemars::JsonSchema;
use serde::Serialize;

/// The version of this karat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Build {
    /// The name of the package.
    pub(crate) name: &'static str,
    /// The version, as in the changelog.
    pub(crate) version: &'static str,
}

impl Build {
    /// The build that this code belongs to.
    pub(crate) const CURRENT: Self = Self { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") };
}
