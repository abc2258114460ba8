//! Work that takes a while, away from the threads that answer everybody.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

use super::problem::{Problem, ProblemType};

/// Does some work on a thread of its own.
///
/// # Errors
/// When the work panicked.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(work)
        .await
        .map_err(|_| Problem::new(ProblemType::Internal, "an internal task failed; the server's log has the cause"))
}

/// A body of fewer bytes is read in less time than it is worth to change threads for.
const LARGE: usize = 256 * 1024;

/// Where large bodies are read: away from the threads that answer everybody, and one at a time, since each takes a core
/// from those that compute.
#[derive(Debug, Clone)]
pub struct LargeBodies(Arc<Semaphore>);

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl LargeBodies {
    /// Does what takes as long as a body of so many bytes is large. It isn't begun once its request is given up.
    ///
    /// # Errors
    /// When the work panicked.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if bytes < LARGE {
            return Ok(work());
        }
        // Nobody closes the semaphore. The permit stays with the work, which outlives a request that is given up.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
        apart(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        thread::{self, ThreadId},
    };

    use futures_util::{FutureExt, future::join};

    use super::*;

    async fn thread_of(bodies: &LargeBodies, bytes: usize) -> ThreadId {
        bodies.read(bytes, || thread::current().id()).await.unwrap()
    }

    #[tokio::test]
    async fn large_bodies_leave_the_async_threads_alone() {
        let (bodies, here) = (LargeBodies::default(), thread::current().id());
        assert_eq!(thread_of(&bodies, LARGE - 1).await, here);
        assert_ne!(thread_of(&bodies, LARGE).await, here);
    }

    #[tokio::test]
    async fn one_large_body_is_read_at_a_time_and_none_that_nobody_waits_for() {
        let bodies = LargeBodies::default();
        let (open, gate) = mpsc::channel::<()>();
        let mut first = Box::pin(bodies.read(LARGE, move || gate.recv().is_ok()));
        assert!((&mut first).now_or_never().is_none());
        let (done, second) = mpsc::channel();
        let mut given_up = Box::pin(bodies.read(LARGE, move || done.send(())));
        assert!((&mut given_up).now_or_never().is_none(), "the first has the place");
        let small = thread_of(&bodies, 1).await;
        assert_eq!(small, thread::current().id(), "small ones wait for nobody");
        drop(given_up);
        let third = bodies.read(LARGE, || ());
        open.send(()).unwrap();
        let (first, third) = join(first, third).await;
        assert!(first.unwrap() && third.is_ok());
        assert!(second.recv().is_err(), "it was given up before its turn came");
    }
}
