//! Decides what runs next, so that every core computes real tokens and nobody waits longer than need be.
//!
//! ```text
//! submit ─▶ admission ─▶ Planner ─▶ worker thread ─▶ Executor ─▶ Ticket
//!           (QueueLimits) (Policy)   one a session
//! ```
//!
//! A batch is formed when a worker becomes free, never earlier, where a device is shared while its last pass still runs: of what waits then, the job that is due first of
//! the client that was served least is joined by those of similar length, or by those that begin alike. [`Planner`] is
//! that decision alone, without clock, lock or thread; [`Scheduler`] drives it. [`calibrate`] measures which [`Policy`]
//! suits a model on a machine, on a `loan` of sessions that have nothing to do, and [`trial`] finds out whether samples
//! may share a pass at all.

mod admission;
mod affinity;
pub mod calibrate;
mod dispatch;
mod job;
mod loan;
mod planner;
mod policy;
mod rate;
mod remembered;
mod replicas;
mod scheduler;
pub mod trial;
mod turns;
mod worker;

pub use job::{Admission, Completed, Job, JobError, PassId, PassRecord, Priority, QueueRefusal, Ticket};
pub use planner::{JobId, Planned, Planner, WaitingJob};
pub use policy::{Grouping, Policy, QueueLimits};
pub(crate) use remembered::{recall, remember};
pub use scheduler::{Executors, Scheduler, StartError};
pub use turns::ClientId;
