//! The end of a server as its clients see it.
//!
//! First it says that it isn't ready while it still takes requests, so that balancers send the next ones elsewhere.
//! Then it takes none, and those in flight are finished. At last what isn't finished is given up.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How far the end has come. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Closing {
    leaving: CancellationToken,
    given_up: CancellationToken,
}

impl Closing {
    /// From now on the server isn't ready, and closes each connection of HTTP/1.1 behind its next reply.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// From now on bodies that haven't come whole are waited for no more.
    pub fn give_up(&self) {
        self.leave();
        self.given_up.cancel();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Ready once the server isn't, when what has no end of its own is to end.
    pub(super) fn left(&self) -> WaitForCancellationFutureOwned {
        self.leaving.clone().cancelled_owned()
    }

    /// Ready once requests are given up.
    pub(super) fn given_up(&self) -> WaitForCancellationFutureOwned {
        self.given_up.clone().cancelled_owned()
    }
}
