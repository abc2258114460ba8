//! Every group of threads that was started, so that all of them end together.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::Ends;

/// All threads of all models, those of models included that are still being loaded. Keeps none of them alive.
#[derive(Default)]
pub(crate) struct Roster {
    listed: Mutex<Listed>,
}

#[derive(Default)]
struct Listed {
    teams: Vec<(Weak<dyn Ends>, Stage)>,
    closed: bool,
}

/// For whom threads work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// For nobody yet: their model is being loaded, and what they were given is given up whenever the end comes.
    Loading,
    /// For requests.
    Serving,
}

impl Roster {
    /// Adds threads, or tells for whom those of before work now. Where the end has come, they are stopped at once.
    pub(super) fn enlist(&self, team: &Arc<dyn Ends>, stage: Stage) {
        let late = {
            let mut listed = self.lock();
            let new = Arc::downgrade(team);
            listed.teams.retain(|(known, _)| known.strong_count() > 0 && !known.ptr_eq(&new));
            listed.teams.push((new, stage));
            listed.closed
        };
        if late {
            team.stop();
        }
    }

    /// Whether the end has come: threads that are enlisted from now on are stopped at once.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes nothing more, finishes what was admitted for requests, and returns once all threads have ended.
    pub(crate) fn drain(&self) {
        let teams = self.close();
        // All are closed before one is waited for, so that they drain side by side.
        for (team, stage) in &teams {
            match stage {
                Stage::Loading => team.stop(),
                Stage::Serving => team.close(),
            }
        }
        teams.iter().for_each(|(team, _)| team.join());
    }

    /// Takes nothing more, fails what waits, and cancels what runs. Doesn't block.
    pub(crate) fn stop(&self) {
        self.close().iter().for_each(|(team, _)| team.stop());
    }

    fn close(&self) -> Vec<(Arc<dyn Ends>, Stage)> {
        let mut listed = self.lock();
        listed.closed = true;
        listed.teams.iter().filter_map(|(team, stage)| Some((team.upgrade()?, *stage))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        // Entries are pushed whole.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.lock();
        f.debug_struct("Roster").field("teams", &listed.teams.len()).field("closed", &listed.closed).finish()
    }
}
