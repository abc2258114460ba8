//! As many connections as the system allows.
//!
//! Each takes a file descriptor, and most systems start a process with 1024, of which it may have many times as many. Where
//! none is left, connections wait unheard until their clients give up.

/// Lets the process have as many files and connections as it may have.
pub(crate) fn allow_all() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            tracing::debug!(%error, "the limit of open files stays");
        }
    }
}
