//! Which sessions there are, and what each counts as.

/// Which sessions a worker thread belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::schedule) enum Role {
    Parallel,
    Single,
}

/// Where a worker thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::schedule) struct Place {
    pub(in crate::schedule) role: Role,
    /// The number of its device among those of its role.
    pub(in crate::schedule) replica: usize,
}

/// How many sessions there are of each kind.
#[derive(Debug, Clone, Copy)]
pub(in crate::schedule) struct Sessions {
    pub(in crate::schedule) parallel: usize,
    pub(in crate::schedule) single: bool,
    /// Whose sessions run side by side: those of one thread, or the one on all cores, which is then the only one.
    pub(in crate::schedule) crew: Role,
}

impl Sessions {
    /// How many there are.
    pub(super) fn all(self) -> usize {
        self.parallel + usize::from(self.single)
    }

    /// What a worker's session counts as; `None` where it isn't wanted any more.
    pub(super) fn role(self, worker: Role) -> Option<Role> {
        if worker == self.crew {
            Some(Role::Parallel)
        } else {
            Some(worker).filter(|worker| *worker == Role::Single && self.single)
        }
    }
}
