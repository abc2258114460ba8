//! What a server knows of the training runs that it scores for, and the one call by which every route scores.
//!
//! A request that names no run is scored and nothing else. Of one that does, what its samples were goes to the recorder
//! after they were scored, so that nobody waits for statistics.

mod learned;
mod side;
mod tag;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use karat_engine::engine::{Engine, Facts, SampleReport, ScoreReport, ScoreRequest};
use karat_rules::domain::ModelName;
use karat_runs::{
    registry::{Bounds, ClaimedRun, Recorder, Runs},
    run::{OriginRef, Request, RequestKey, RunName},
    statistics::Observation,
    store::{JobStore, Store, StoreError},
};
use tokio::sync::Mutex;

pub(crate) use learned::memories;
pub(crate) use tag::{RunFields, RunTag};

use super::{
    AppState,
    native::{Backlog, Progress, work_on_backlog, work_on_jobs},
    problem::{Problem, ProblemType, invalid},
};
use crate::telemetry::{Metrics, Waiting};
use learned::LearnedStates;
use side::{Beside, SideQueue};

/// How often runs are written down that changed.
const SAVE: Duration = Duration::from_secs(5);

/// How much is kept of runs, and where.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The folder of what lasts; without it, everything lives in memory.
    pub folder: Option<PathBuf>,
    /// The most runs.
    pub runs: usize,
    /// The most memory for all of them, in bytes.
    pub bytes: usize,
    /// How long what requests left gathers before it is recorded together, unless somebody reads or it is much. Whoever
    /// listens to events hears of them so much later, or twice so much where others were recorded meanwhile.
    pub gather: Duration,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { folder: None, runs: 1000, bytes: 256 << 20, gather: Duration::from_millis(50) }
    }
}

/// Why runs can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum RunStateError {
    /// What lasts can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("the thread that keeps statistics can't be started: {0}")]
    Thread(#[from] io::Error),
}

/// What a server knows of the runs that it scores for, and of its jobs.
#[derive(Debug)]
pub struct RunState {
    pub(super) runs: Arc<Runs>,
    pub(super) recorder: Recorder,
    pub(super) store: Store,
    pub(super) jobs: JobStore,
    /// Outcomes are committed and laid beside their rewards one request after another, so that a run always knows all of
    /// them up to one.
    pub(super) outcomes: Mutex<()>,
    side: OnceLock<SideQueue>,
    pub(super) learned: LearnedStates,
    /// How fast the job goes that is being worked on.
    pub(super) progress: Progress,
    /// What is scored after its request was answered.
    pub(super) backlog: Backlog,
}

impl RunState {
    /// Opens what lasts, and puts back what was there.
    ///
    /// # Errors
    /// When the folder can't be used, or the system gives no thread.
    pub fn open(settings: &RunSettings) -> Result<Self, RunStateError> {
        let store = Store::open(settings.folder.as_deref())?;
        let runs = Arc::new(Runs::new(Bounds { runs: settings.runs, bytes: settings.bytes }));
        store.restore(&runs)?;
        let recorder = Recorder::start(Arc::clone(&runs), settings.gather)?;
        let jobs = JobStore::new(store.clone())?;
        let learned = LearnedStates::open(store.clone())?;
        Ok(Self {
            runs,
            recorder,
            store,
            jobs,
            outcomes: Mutex::default(),
            side: OnceLock::new(),
            learned,
            progress: Progress::default(),
            backlog: Backlog::default(),
        })
    }

    /// Writes runs down every few seconds, for as long as the server runs.
    async fn keep_saving(self: &Arc<Self>, engine: &Engine) {
        if !self.store.lasts() {
            return;
        }
        let mut every = tokio::time::interval(SAVE);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.save().await;
            if let Err(error) = self.learned.keep_all(engine).await {
                tracing::error!(%error, "what normalisations learned was not written down");
            }
        }
    }

    /// Sets the figures of runs, jobs and the backlog as they are now.
    pub(super) async fn show(self: &Arc<Self>, metrics: &Metrics) {
        self.settle().await;
        // Of jobs that can't be counted now the last figure is as good as any; the log has the cause.
        let job_rows = self.jobs.waiting().await.unwrap_or_else(|error| {
            tracing::error!(%error, "the jobs can't be counted");
            0
        });
        let waiting = Waiting { job_rows, backlog: self.backlog.len(), dropped: self.recorder.dropped() };
        metrics.show_runs(&self.runs, waiting);
    }

    /// Waits until what was scored before is recorded.
    pub(super) async fn settle(self: &Arc<Self>) {
        let state = Arc::clone(self);
        // What panics while it is folded is logged, and what was folded before is there.
        let _ = tokio::task::spawn_blocking(move || state.recorder.flush()).await;
    }

    async fn save(self: &Arc<Self>) {
        self.settle().await;
        // The log has the cause; what was acknowledged is committed by itself.
        if let Err(error) = self.store.save(&self.runs).await {
            tracing::error!(%error, "the runs were not written down");
        }
    }

    /// Writes down what was recorded until now; blocks.
    pub fn close(&self) {
        self.recorder.flush();
        if self.store.lasts()
            && let Err(error) = self.store.save_blocking(&self.runs)
        {
            tracing::error!(%error, "the runs were not written down");
        }
    }
}

/// What is told to who names a run that another key made.
pub(super) fn another_keys(name: &RunName) -> Problem {
    Problem::new(ProblemType::KeyForbids, format!("the run {name} is another key's; give yours another name"))
}

/// The time in milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl AppState {
    /// Starts what runs beside requests, for as long as the process lives.
    pub fn start_background(&self) {
        tokio::spawn(work_on_jobs(self.clone()));
        tokio::spawn(work_on_backlog(self.clone()));
        let state = self.clone();
        tokio::spawn(async move { state.runs.keep_saving(&state.engine).await });
    }

    /// Whether the request may see a run; one that isn't there hides nothing.
    pub(super) fn may_use_run(&self, name: &RunName) -> bool {
        self.runs.runs.owner(name).is_none_or(|owner| self.visit.may_use(owner.as_deref()))
    }

    /// The run of that name, made the request's key's unless it is there already.
    ///
    /// # Errors
    /// When it is another key's.
    pub(super) async fn claim_run(&self, name: &RunName) -> Result<ClaimedRun, Problem> {
        let claim = self.runs.runs.claim(name, self.visit.key_name(), now);
        if !self.visit.may_use(claim.run.owner()) {
            return Err(another_keys(name));
        }
        // Whose a run is lasts before anything of it is acknowledged.
        if claim.is_new && claim.run.owner().is_some() && self.runs.store.lasts() {
            // Apart, as it is rare and would make what waits for it larger.
            Box::pin(self.runs.store.save(&self.runs.runs)).await?;
        }
        Ok(claim.run)
    }

    /// Scores a request, and keeps statistics of it where it belongs to a run.
    pub(crate) fn score(
        &self,
        tag: Option<&RunTag>,
        id: &str,
        request: ScoreRequest,
    ) -> impl Future<Output = Result<ScoreReport, Problem>> {
        self.score_at(tag, id, request, None)
    }

    /// Scores those samples of a request whose scores are known, at these places in it.
    pub(crate) fn score_known(
        &self,
        tag: Option<&RunTag>,
        id: &str,
        request: ScoreRequest,
        places: Vec<usize>,
    ) -> impl Future<Output = Result<ScoreReport, Problem>> {
        self.score_at(tag, id, request, Some(places))
    }

    async fn score_at(
        &self,
        tag: Option<&RunTag>,
        id: &str,
        request: ScoreRequest,
        places: Option<Vec<usize>>,
    ) -> Result<ScoreReport, Problem> {
        // What isn't let in is none of a run's samples.
        let mut request = self.let_in(request)?;
        self.runs.learned.restore(&self.engine, request.model());
        let mut recording = None;
        if let Some(tag) = tag {
            let run = self.claim_run(&tag.run).await?;
            if request.needs_counts() {
                // A count is never 0, as the sample itself is counted.
                let counts = Box::pin(self.runs.counts(tag, &request)).await;
                request = request.with_counts_if_none(&counts).map_err(invalid)?;
            }
            let asked = Request { key: RequestKey::of(id), places, unscored: request.samples().len() as u64 };
            let side = self.runs.side(tag, &request);
            recording = Some(Recording { tag, run, model: request.model().clone(), request: asked, side });
        }
        let report = self.score_let_in(request).await;
        if let Some(recording) = recording {
            self.record(recording, id, report.as_ref().ok());
        }
        report
    }

    /// Leaves a request's samples to their run, or how many there were, where they got no scores.
    fn record(&self, recording: Recording<'_>, id: &str, report: Option<&ScoreReport>) {
        let Recording { tag, run, model, mut request, side } = recording;
        let recorder = &self.runs.recorder;
        let origin = OriginRef { step: tag.step, task: tag.task.as_ref(), model: &model, probabilities: false };
        let Some(report) = report else {
            return recorder.record(run, origin, request, std::iter::empty(), None::<std::iter::Empty<f32>>);
        };
        let origin = OriginRef { model: &report.model, probabilities: report.probabilities, ..origin };
        request.unscored = report.refused.len() as u64;
        if request.unscored > 0 && request.places.is_none() {
            request.places = Some(scored_places(report));
        }
        let samples = report.facts.iter().zip(&report.results);
        let samples = samples.map(|(facts, sample)| observation(*facts, sample));
        recorder.record(run, origin, request, samples, members(report));
        if !side.is_empty() {
            self.runs.send_aside(self, tag, id, report, side);
        }
    }
}

/// What a request leaves to its run once it was scored.
struct Recording<'a> {
    tag: &'a RunTag,
    run: ClaimedRun,
    /// The model that was asked for.
    model: ModelName,
    /// With all its samples unscored.
    request: Request,
    side: Vec<Beside>,
}

/// Where in their request those samples stand that were scored.
fn scored_places(report: &ScoreReport) -> Vec<usize> {
    let all = report.results.len() + report.refused.len();
    (0..all).filter(|place| report.refused.iter().all(|refusal| refusal.index != *place)).collect()
}

/// What is kept of a sample that was scored.
fn observation(Facts { hash, length, refusal }: Facts, sample: &SampleReport) -> Observation {
    Observation {
        reward: sample.reward.get(),
        mean: sample.ensemble.mean.get(),
        worst_case: sample.ensemble.worst_case.get(),
        variance: sample.ensemble.variance.get(),
        length,
        hash,
        cut: sample.cut.is_cut(),
        at_bound: sample.at_bound,
        refusal,
    }
}

/// The members' scores, as many for each sample; none where samples don't have the same members, or have one alone.
fn members(report: &ScoreReport) -> Option<impl Iterator<Item = f32>> {
    let each = report.results.iter().map(|sample| &sample.ensemble.members[..]);
    let width = each.clone().next().map_or(0, <[_]>::len);
    let told_apart = width > 1 && each.clone().all(|members| members.len() == width);
    told_apart.then(|| each.flatten().map(|score| score.get() as f32))
}

impl RunState {
    /// How often each sample was seen in its run, this time and equal samples before it in the request included.
    async fn counts(self: &Arc<Self>, tag: &RunTag, request: &ScoreRequest) -> Vec<u64> {
        self.settle().await;
        let hashes: Vec<u64> = request.samples().iter().map(|sample| Facts::of(sample).hash).collect();
        let before = self.runs.times(&tag.run, &hashes).unwrap_or_else(|| vec![0; hashes.len()]);
        let mut within = std::collections::HashMap::new();
        let counts = hashes.iter().zip(before).map(|(hash, before)| {
            let times = within.entry(*hash).or_insert(u64::from(before));
            *times += 1;
            *times
        });
        counts.collect()
    }

    /// The samples for which more is asked than their score.
    fn side(&self, tag: &RunTag, request: &ScoreRequest) -> Vec<Beside> {
        let Some(chosen) = self.runs.chosen(&tag.run) else { return Vec::new() };
        let wanted = request.places().into_iter().zip(request.samples()).filter_map(|(index, sample)| {
            let hash = Facts::of(sample).hash;
            let judge = chosen.config.judge.as_ref().filter(|_| chosen.is_judged(hash));
            let judge = judge.map(|judge| judge.model.clone());
            let probe = chosen.is_probed(hash);
            (judge.is_some() || probe).then(|| Beside { index, sample: sample.clone(), judge, probe })
        });
        wanted.collect()
    }

    /// Leaves samples to be scored again when there is nothing else to do.
    fn send_aside(&self, of: &AppState, tag: &RunTag, id: &str, report: &ScoreReport, samples: Vec<Beside>) {
        let queue = self.side.get_or_init(|| SideQueue::start(of.clone()));
        let left_out = queue.send(&of.visit, tag, id, report, samples);
        if left_out > 0 {
            self.runs.add_unjudged(&tag.run, left_out);
        }
    }
}
