//! The scoring rules of karat: pure functions without input or output.
//!
//! A rule (head, aggregation, transform, selection rule, metric) is one file with an
//! [`Entry`](domain::catalogue::Entry) and one line in the list of its folder's `mod.rs`. Manifests, requests, schemas
//! and documentation follow from the entry.

pub mod aggregate;
pub mod catalogue;
pub mod domain;
pub mod head;
pub mod metrics;
pub mod numeric;
pub mod select;
pub mod transform;
