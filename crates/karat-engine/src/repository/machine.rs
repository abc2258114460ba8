//! How a graph uses the machine: as was chosen when it was loaded, or as was measured once it served.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use karat_runtime::RuntimeError;

use super::GraphUnit;
use crate::schedule::{
    calibrate::{Calibration, Conditions},
    trial::Company,
};

/// How a graph uses the machine. The default is one of which nothing was chosen.
#[derive(Debug, Default)]
pub struct MachineUse {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chosen: Option<Calibration>,
    awaits: Option<Awaited>,
    /// How long it is to rest after a measurement that something disturbed, and until when.
    rest: Option<(Duration, Instant)>,
}

/// How long it rests after the first disturbed measurement; after each further one twice as long, up to an hour: beside
/// models that are always busy, measuring must not become part of the load.
const REST: Duration = Duration::from_secs(20);
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// A measurement that ends sooner, since something waited, cost next to nothing.
const BRIEF: Duration = Duration::from_millis(100);

/// What is to be measured of a graph, which goes on as most models do until then.
#[derive(Debug, Clone)]
pub(super) struct Awaited {
    pub(super) conditions: Conditions,
    /// The most samples of a batch, where the manifest says so.
    pub(super) max_batch: Option<NonZeroUsize>,
    /// Where the choice is kept for the next start.
    pub(super) file: PathBuf,
    /// Everything that it depends on.
    pub(super) fingerprint: String,
}

impl MachineUse {
    /// What was chosen, and what is still to be measured, if anything is.
    pub(super) fn new(chosen: Calibration, awaits: Option<Awaited>) -> Self {
        Self { state: Mutex::new(State { chosen: Some(chosen), awaits, rest: None }) }
    }

    /// What holds now; none where nothing was chosen.
    #[must_use]
    pub fn chosen(&self) -> Option<Calibration> {
        self.lock().chosen
    }

    /// What was measured, or holds for good; none while it is still to be measured.
    pub(super) fn settled(&self) -> Option<Calibration> {
        let state = self.lock();
        state.chosen.filter(|_| state.awaits.is_none())
    }

    /// Whether the graph goes on as most models do until nothing waits and it can be measured.
    #[must_use]
    pub fn awaits_calibration(&self) -> bool {
        self.lock().awaits.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Changed in whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GraphUnit {
    /// Measures what is to be measured of the graph, if nothing waits for it, and keeps it for the next start. Gives the
    /// choice that holds from now on, if there is a new one. Blocks.
    ///
    /// # Errors
    /// When a pass fails, which is then not tried again.
    pub(super) fn calibrate(&self) -> Result<Option<Calibration>, RuntimeError> {
        let begun = Instant::now();
        let awaited = {
            let state = self.machine.lock();
            if state.rest.is_some_and(|(_, until)| until > begun) {
                return Ok(None);
            }
            state.awaits.clone()
        };
        let Some(awaited) = awaited else { return Ok(None) };
        let company = self.trial.as_ref().map_or(Company::Any, |trial| trial.company);
        let measured = self.scheduler.calibrate(&awaited.conditions, |measured| {
            if let Err(error) = measured.save(&awaited.file, &awaited.fingerprint) {
                tracing::info!(file = %awaited.file.display(), %error, "calibration not kept: measured again next time");
            }
            if let Some(most) = awaited.max_batch {
                measured.batch_samples = measured.batch_samples.min(most.get());
            }
            measured.policy().in_company(company)
        });
        let mut state = self.machine.lock();
        match measured {
            Ok(None) => {
                if begun.elapsed() > BRIEF {
                    let rest = state.rest.map_or(REST, |(rest, _)| (2 * rest).min(LONGEST_REST));
                    state.rest = Some((rest, Instant::now() + rest));
                }
                Ok(None)
            }
            Ok(Some(measured)) => {
                *state = State { chosen: Some(measured), ..State::default() };
                Ok(Some(measured))
            }
            Err(error) => {
                state.awaits = None;
                Err(error)
            }
        }
    }
}
