//! Work that takes a while, away from the threads that answer everybody.

use tokio::task::spawn_blocking;

use crate::api::problem::{Problem, ProblemType};

/// Does some work on a thread of its own.
///
/// # Errors
/// When the work panicked.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(work)
        .await
        .map_err(|_| Problem::new(ProblemType::Internal, "an internal task failed; the server's log has the cause"))
}
