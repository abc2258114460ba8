//! How metrics are declared, and what the runtime counts.
//!
//! Every layer owns its metrics: a struct built with `register(&Registry)`, so that two servers in one process (as in
//! tests) never mix their figures. Names are `karat_<noun>_<unit>[_total]` in base units; every label has a small closed
//! set of values. A metric is one line: its field, its kind, its name and its help.

mod declaration;
mod packed;
mod prefix;

pub use declaration::{Declaration, Figure, Kind};
pub(crate) use packed::BlockCounts;
pub use packed::PackedMetrics;
pub(crate) use prefix::PrefixCounts;
pub use prefix::{PrefixCacheMetrics, PrefixMetrics, SharingMetrics};
