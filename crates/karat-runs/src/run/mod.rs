//! A run: what its samples were, what was asked of it, and which signals fire.

mod batch;
mod calibration;
mod config;
mod event;
mod given;
mod name;
mod report;
mod seen;
mod track;

use karat_rules::domain::ModelName;
use serde::{Deserialize, Serialize};

pub use batch::{Batch, Matched, Origin, OriginRef, Request};
pub use calibration::CalibrationReport;
pub use config::{Config, Judge, Probe, is_in_share};
pub use event::{Event, EventKind};
pub use given::RequestKey;
pub use name::{RunName, RunNameError};
pub use report::{ModelReport, PairStep, PairsReport, Preference, RunReport, RunSummary, SignalReport, StepReport};
pub use track::Beside;

use event::Events;
use given::Given;
use report::TaskReport;
use seen::Seen;
use track::Track;

use crate::{signals::Reading, statistics::TaskSketch};

/// The most models whose rewards one run keeps: more are counted as left out.
const MODELS: usize = 2;
/// The most tasks that one run tells apart: samples of more count without a task.
const TASKS: usize = 32;
/// After how many samples signals are read although no new step began.
const READ: u64 = 512;

/// A run's whole state; what is written to a file and read from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    name: RunName,
    /// The name of the key that it was made with; none of one that everybody may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    created: u64,
    updated: u64,
    samples: u64,
    left_out: u64,
    unjudged: u64,
    unread: u64,
    config: Config,
    tracks: Vec<(ModelName, Track)>,
    seen: Seen,
    given: Given,
    events: Events,
    tasks: Vec<(RunName, ModelName, TaskSketch)>,
    /// The number of the last outcome that is laid beside a reward.
    outcomes: u64,
}

impl Run {
    /// A run that nothing is known of.
    #[must_use]
    pub fn new(name: RunName, now: u64) -> Self {
        Self {
            name,
            owner: None,
            created: now,
            updated: now,
            samples: 0,
            left_out: 0,
            unjudged: 0,
            unread: 0,
            config: Config::default(),
            tracks: Vec::new(),
            seen: Seen::default(),
            given: Given::default(),
            events: Events::default(),
            tasks: Vec::new(),
            outcomes: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RunName {
        &self.name
    }

    /// The same, of a key.
    #[must_use]
    pub fn of(self, owner: Option<String>) -> Self {
        Self { owner, ..self }
    }

    /// The name of the key that it was made with; none of one that everybody may use.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// What is asked of it beside statistics.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Asks other things of it.
    pub fn configure(&mut self, config: Config, now: u64) {
        self.config = config;
        self.updated = now;
    }

    /// Takes another run's rewards in place of this one's beginning; whether there were any.
    pub fn take_reference(&mut self, other: &Self) -> bool {
        let mut taken = false;
        for (model, theirs) in &other.tracks {
            if let Some(place) = self.track(model) {
                taken |= self.tracks[place].1.series.register_reference(&theirs.series);
            }
        }
        taken
    }

    /// The place of a model's track, which is made where there is room.
    fn track(&mut self, model: &ModelName) -> Option<usize> {
        let found = self.tracks.iter().position(|(name, _)| name == model);
        if found.is_none() && self.tracks.len() < MODELS {
            self.tracks.push((model.clone(), Track::default()));
            return Some(self.tracks.len() - 1);
        }
        found
    }

    /// Takes the samples of requests in; what happened. The statistics of a step that ended are among that where `heard`:
    /// somebody listens.
    pub fn add(&mut self, batch: &Batch<'_>, heard: bool, now: u64) -> Vec<Event> {
        self.updated = now;
        let Some(place) = self.track(&batch.origin.model) else {
            self.left_out += batch.samples.count() as u64;
            return Vec::new();
        };
        // A request that begins a step ends the one before, whatever came with it, so that what is read at a step's end
        // doesn't depend on how many wait. Where no step is named, any request may begin one.
        let together = if batch.origin.step.is_some() { batch.requests.len() } else { 1 };
        let goes_on = batch.origin.step.is_some_and(|step| self.tracks[place].1.series.is_latest(step));
        let mut happened = Vec::new();
        let (mut next, mut others) = batch.split_at(if goes_on { together } else { 1 });
        while !next.requests.is_empty() {
            if self.add_together(place, &next) {
                happened.extend(self.end_step(place, heard, now));
            }
            (next, others) = others.split_at(together);
        }
        happened
    }

    /// Takes samples in that belong to one track; whether a step began.
    fn add_together(&mut self, place: usize, batch: &Batch<'_>) -> bool {
        let Batch { origin, samples, .. } = *batch;
        let (_, track) = &mut self.tracks[place];
        let mut began = false;
        let count = samples.count() as u64;
        if count > 0 {
            track.probabilities = origin.probabilities;
            let seen = &mut self.seen;
            began = track.series.add(origin.step, samples, |hashes| seen.count_all(hashes));
            let latest = || track.series.buckets().last().map_or(0, |bucket| bucket.last_step);
            let step = origin.step.unwrap_or_else(latest);
            for (request, samples) in batch.each() {
                // There are two tracks at most.
                self.given.add(request, step, place as u8, samples.rewards().iter().map(|reward| *reward as f32));
            }
            self.add_to_task(batch);
            self.samples += count;
            self.unread += count;
        }
        let unscored = batch.requests.iter().map(|(request, _)| request.unscored).sum();
        if unscored > 0 {
            self.tracks[place].1.series.add_unscored(origin.step, unscored);
        }
        began
    }

    /// Reads the signals of a model one of whose steps has ended; what happened.
    fn end_step(&mut self, place: usize, heard: bool, now: u64) -> Vec<Event> {
        self.unread = 0;
        let (model, track) = &mut self.tracks[place];
        let mut happened = Vec::new();
        match track.ended_step() {
            Some((step, before)) if heard => {
                let step = Box::new(StepReport::new(step, before));
                happened.push(self.events.add(now, model, EventKind::Step { step }));
            }
            Some(_) => self.events.pass(),
            None => {}
        }
        happened.extend(track.read_signals().into_iter().map(|kind| self.events.add(now, model, kind)));
        happened
    }

    fn add_to_task(&mut self, batch: &Batch<'_>) {
        let Origin { task: Some(task), model, .. } = batch.origin else { return };
        let found = self.tasks.iter().position(|(name, scorer, _)| name == task && scorer == model);
        let place = found.or_else(|| {
            (self.tasks.len() < TASKS).then(|| {
                self.tasks.push((task.clone(), model.clone(), TaskSketch::default()));
                self.tasks.len() - 1
            })
        });
        if let Some(place) = place {
            self.tasks[place].2.add_all(batch.samples.rewards());
        }
    }

    /// The number of the last outcome that is laid beside a reward; 0 of none.
    #[must_use]
    pub fn outcomes(&self) -> u64 {
        self.outcomes
    }

    /// Says that outcomes up to that number are laid beside their rewards.
    pub fn know_outcomes(&mut self, last: u64) {
        self.outcomes = last;
    }

    /// Counts samples that a second judge didn't score.
    pub fn add_unjudged(&mut self, samples: u64) {
        self.unjudged += samples;
    }

    /// Lays a number beside a reward that a model gave at a step.
    pub fn add_beside(&mut self, what: Beside, matched: &Matched, other: f64, now: u64) {
        self.updated = now;
        if let Some(place) = self.track(&matched.model) {
            self.tracks[place].1.add_beside(what, matched.step, matched.reward, other);
        }
    }

    /// Reads every signal where many samples came and no step ended.
    pub fn catch_up(&mut self, now: u64) -> Vec<Event> {
        if self.unread < READ {
            return Vec::new();
        }
        self.unread = 0;
        self.read_signals(now)
    }

    /// Reads every signal now, as after outcomes, which no sample follows.
    pub fn read_signals(&mut self, now: u64) -> Vec<Event> {
        let mut happened = Vec::new();
        for (model, track) in &mut self.tracks {
            happened.extend(track.read_signals().into_iter().map(|kind| self.events.add(now, model, kind)));
        }
        happened
    }

    /// The reward that a request got for a sample, if it is among the latest.
    #[must_use]
    pub fn find(&self, request: &str, index: usize) -> Option<Matched> {
        let given = self.given.find(RequestKey::of(request), index)?;
        let (model, _) = self.tracks.get(usize::from(given.track))?;
        Some(Matched { model: model.clone(), step: given.step, reward: given.reward.into() })
    }

    /// How often the run saw a sample, by its hash.
    #[must_use]
    pub fn times(&self, hash: u64) -> u32 {
        self.seen.times(hash)
    }

    /// The signals that began to fire or stopped after the event of that number.
    #[must_use]
    pub fn events_after(&self, id: u64) -> Vec<Event> {
        self.events.kept().filter(|event| event.id > id).cloned().collect()
    }

    /// How many signals fire, each once.
    #[must_use]
    pub fn firing(&self) -> usize {
        self.summary().firing.len()
    }

    /// In a line.
    #[must_use]
    pub fn summary(&self) -> RunSummary {
        let mut firing: Vec<String> =
            self.tracks.iter().flat_map(|(_, track)| track.firing()).map(str::to_owned).collect();
        firing.sort_unstable();
        firing.dedup();
        let last = self.tracks.iter().filter_map(|(_, track)| track.series.buckets().last());
        RunSummary {
            run: self.name.clone(),
            samples: self.samples,
            last_step: last.map(|bucket| bucket.last_step).max().unwrap_or(0),
            models: self.tracks.iter().map(|(model, _)| model.clone()).collect(),
            firing,
            updated: self.updated,
        }
    }

    /// All of it.
    #[must_use]
    pub fn report(&self) -> RunReport {
        RunReport {
            run: self.name.clone(),
            samples: self.samples,
            created: self.created,
            updated: self.updated,
            config: self.config.clone(),
            unjudged: self.unjudged,
            models: self.tracks.iter().map(|(model, track)| track.report(model)).collect(),
            tasks: self.tasks.iter().map(|(task, model, sketch)| TaskReport::new(task, model, sketch)).collect(),
            events: self.events.kept().cloned().collect(),
        }
    }

    /// The latest step of each model, and every signal's value and whether it fires.
    pub fn figures(&self) -> impl Iterator<Item = (&ModelName, StepReport, Vec<(String, Reading)>)> {
        self.tracks.iter().filter_map(|(model, track)| {
            let latest = StepReport::new(track.series.buckets().last()?, None);
            Some((model, latest, track.readings().map(|(name, reading)| (name.to_owned(), reading)).collect()))
        })
    }

    /// The share of a model's rewards in this run, or in one of its tasks, that lie below each value, from 0 to 1; none of
    /// none.
    #[must_use]
    pub fn percentiles(&self, model: &ModelName, task: Option<&RunName>, rewards: &[f64]) -> Option<Vec<f64>> {
        if let Some(task) = task {
            let (.., sketch) = self.tasks.iter().find(|(name, scorer, _)| name == task && scorer == model)?;
            return sketch.ranks(rewards);
        }
        let (_, track) = self.tracks.iter().find(|(name, _)| name == model)?;
        track.series.percentiles(rewards)
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.tracks.iter().map(|(_, track)| track.bytes()).sum::<usize>()
            + self.seen.bytes()
            + self.given.bytes()
            + self.events.bytes()
            + self.tasks.iter().map(|(.., sketch)| 64 + sketch.bytes()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
