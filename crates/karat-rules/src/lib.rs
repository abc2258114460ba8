//! The scoring rules of karat: pure functions without input or output.
//!
//! A rule (head, aggregation, transform, selection rule, metric) is one file and one line in the list of its folder's
//! `mod.rs`. The file says where the rule comes from, what its parameters are, what it is called and computes (a
//! [`Rule`](domain::catalogue::Rule)), how it computes that, and tests it against published values. Manifests,
//! requests, schemas and documentation follow.

pub mod aggregate;
pub mod catalogue;
pub mod domain;
pub mod edit;
pub mod head;
pub mod metrics;
pub mod numeric;
pub mod select;
pub mod transform;

#[cfg(test)]
mod largest;
