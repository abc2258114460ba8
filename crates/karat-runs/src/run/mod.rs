//! A run: what its samples were, what was asked of it, and which signals fire.

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

pub use calibration::CalibrationReport;
pub use config::{Config, Judge, Probe, is_in_share};
pub use event::{Event, EventKind};
pub use name::{RunName, RunNameError};
pub use report::{ModelReport, PairStep, PairsReport, Preference, RunReport, RunSummary, SignalReport, StepReport};
pub use track::Beside;

use event::Events;
use given::Given;
use report::TaskReport;
use seen::Seen;
use track::Track;

use crate::{
    signals::Reading,
    statistics::{Observation, Sketch},
};

/// The most models whose rewards one run keeps: more are counted as left out.
const MODELS: usize = 2;
/// The most tasks that one run tells apart: samples of more count without a task.
const TASKS: usize = 32;
/// After how many samples signals are read although no new step began.
const READ: u64 = 512;

/// Samples that one request had scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The run that they belong to.
    pub run: RunName,
    /// The step, if the request named one.
    pub step: Option<u64>,
    /// What the samples are of, if the request says so: rewards of different tasks are told apart.
    pub task: Option<RunName>,
    /// The model that scored.
    pub model: ModelName,
    /// Whether its rewards are probabilities.
    pub probabilities: bool,
    /// The request's id, by which outcomes find the rewards.
    pub request: String,
    /// The samples, in the order of the request.
    pub samples: Vec<Observation>,
    /// The place of each in the request, ascending, where it had others that got no reward yet.
    pub places: Option<Vec<usize>>,
    /// The members' scores, as many for each sample.
    pub members: Vec<f32>,
}

impl Batch {
    /// The rewards by place in the request.
    fn rewards(&self) -> impl Iterator<Item = Option<f64>> {
        let places = self.places.as_deref();
        let count = places.map_or(self.samples.len(), |places| places.last().map_or(0, |last| last + 1));
        (0..count).map(move |place| {
            let index = places.map_or(Some(place), |places| places.binary_search(&place).ok())?;
            self.samples.get(index).map(|sample| sample.reward)
        })
    }
}

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
    tasks: Vec<(RunName, ModelName, Sketch)>,
    /// The number of the last outcome that is laid beside a reward.
    outcomes: u64,
}

/// What an outcome was laid beside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// The model that gave the reward.
    pub model: ModelName,
    /// The step.
    pub step: u64,
    /// The reward.
    pub reward: f64,
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

    /// Takes samples in; what happened.
    pub fn add(&mut self, batch: &Batch, now: u64) -> Vec<Event> {
        self.updated = now;
        let count = batch.samples.len() as u64;
        let Some(place) = self.track(&batch.model) else {
            self.left_out += count;
            return Vec::new();
        };
        self.samples += count;
        let (_, track) = &mut self.tracks[place];
        track.probabilities = batch.probabilities;
        let seen = &mut self.seen;
        let began = track.series.add(batch.step, &batch.samples, &batch.members, |hash| seen.count(hash) > 1);
        let step = batch.step.unwrap_or_else(|| track.series.buckets().last().map_or(0, |bucket| bucket.last_step));
        // There are two tracks at most.
        self.given.add(&batch.request, step, place as u8, batch.rewards());
        self.unread += count;
        self.add_to_task(batch);
        let (model, track) = &mut self.tracks[place];
        let mut happened = Vec::new();
        if began || self.unread >= READ {
            self.unread = 0;
            let ended = track.ended_step().filter(|_| began).map(|step| EventKind::Step { step: Box::new(step) });
            let changed = ended.into_iter().chain(track.read_signals());
            happened.extend(changed.map(|kind| self.events.add(now, model, kind)));
        }
        happened
    }

    fn add_to_task(&mut self, batch: &Batch) {
        let Some(task) = &batch.task else { return };
        let found = self.tasks.iter().position(|(name, model, _)| name == task && *model == batch.model);
        let place = found.or_else(|| {
            (self.tasks.len() < TASKS).then(|| {
                self.tasks.push((task.clone(), batch.model.clone(), Sketch::default()));
                self.tasks.len() - 1
            })
        });
        if let Some(place) = place {
            batch.samples.iter().for_each(|sample| self.tasks[place].2.add(sample.reward));
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

    /// Counts samples that got no reward.
    pub fn add_unscored(&mut self, model: &ModelName, step: Option<u64>, samples: u64, now: u64) {
        self.updated = now;
        if let Some(place) = self.track(model) {
            self.tracks[place].1.series.add_unscored(step, samples);
        }
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
        let given = self.given.find(request)?;
        let reward = f64::from((*given.rewards.get(index)?)?);
        let (model, _) = self.tracks.get(usize::from(given.track))?;
        Some(Matched { model: model.clone(), step: given.step, reward })
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
mod tests {
    use super::*;
    use crate::statistics::testing::observation;

    fn name(text: &str) -> RunName {
        text.parse().unwrap()
    }

    /// Samples whose reward rises with the step while what a judge thinks of them falls.
    fn batch(step: u64, count: u64) -> Batch {
        let samples = (0..count).map(|number| {
            let mut sample = observation(step as f64 * 0.1 + (number % 17) as f64);
            sample.hash = step * 1000 + number;
            sample
        });
        Batch {
            run: name("a"),
            step: Some(step),
            task: Some(format!("task-{}", step % 40).parse().unwrap()),
            model: "m".parse().unwrap(),
            probabilities: false,
            request: format!("request-{step}"),
            samples: samples.collect(),
            places: None,
            members: Vec::new(),
        }
    }

    #[test]
    fn a_second_judge_that_does_not_follow_is_told_once_with_its_evidence() {
        let mut run = Run::new(name("a"), 1);
        let mut happened = Vec::new();
        for step in 0..200 {
            happened.extend(run.add(&batch(step, 32), 2));
            for index in 0..16 {
                let matched = run.find(&format!("request-{step}"), index).unwrap();
                run.add_beside(Beside::Judge, &matched, (index % 17) as f64 - step as f64 * 0.01, 2);
            }
        }
        let fired: Vec<&Event> = happened
            .iter()
            .filter(|event| matches!(&event.kind, EventKind::Signal { signal, .. } if signal == "judge_parts"))
            .collect();
        let [Event { kind: EventKind::Signal { firing: true, step, reading, .. }, .. }] = fired[..] else {
            panic!("{fired:?}")
        };
        assert!(*step > 8 && *step < 100 && reading.samples >= 64, "{reading:?}");
        let told = run.report();
        let signal = told.models[0].signals.iter().find(|signal| signal.signal == "judge_parts").unwrap();
        assert_eq!((signal.firing, signal.since_step), (true, Some(*step)));
        assert!(run.summary().firing.contains(&"judge_parts".to_owned()));
    }

    #[test]
    fn a_run_takes_less_than_a_mebibyte_whatever_is_sent() {
        let mut run = Run::new(name("a"), 1);
        for step in 0..3000_u64 {
            for model in ["m", "n", "o"] {
                let mut batch = Batch { model: model.parse().unwrap(), ..batch(step, 48) };
                batch.request = format!("{model}-{step}");
                batch.members = (0..48 * 20).map(|score| score as f32).collect();
                run.add(&batch, 2);
                let matched = Matched { model: batch.model, step, reward: 1.0 };
                for what in [Beside::Judge, Beside::Outcome, Beside::Sensitivity] {
                    run.add_beside(what, &matched, 0.5, 2);
                }
            }
        }
        assert!(run.bytes() < 1 << 20, "{}", run.bytes());
        let written = serde_json::to_string(&run).unwrap();
        let read: Run = serde_json::from_str(&written).unwrap();
        assert_eq!(read.summary(), run.summary());
        assert_eq!(read.find("m-2999", 47), run.find("m-2999", 47));
    }

    #[test]
    fn a_table_has_a_line_a_step_and_as_many_columns_in_each() {
        let mut run = Run::new(name("a"), 1);
        (0..3).for_each(|step| drop(run.add(&batch(step, 1), 2)));
        let table = run.report().to_csv();
        let columns: Vec<usize> = table.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [24; 4], "{table}");
    }
}
