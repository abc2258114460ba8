//! Whose pass may start: a pure decision, told the time by its caller.

use std::time::{Duration, Instant};

use super::Purpose;

/// How long the cores are kept free for a purpose after its last pass, where its turn is next: as long as it takes to draw
/// the next tokens, or to lay the next row out.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// After how long a rest a purpose has no claim to what it didn't use.
pub(super) const REST: Duration = Duration::from_secs(1);

/// What both purposes had of the cores.
#[derive(Debug, Default)]
pub(super) struct Shares {
    scoring: Party,
    writing: Party,
    /// Whether a pass ran since somebody asked for a rest.
    ran: bool,
    /// Whether one ran before that, and no rest was told since.
    ran_before: bool,
}

#[derive(Debug, Default)]
struct Party {
    waiting: usize,
    running: usize,
    /// When the first of those that run began; they overlap.
    since: Option<Instant>,
    /// How long it had the cores.
    used: Duration,
    /// When its last pass ended.
    ended: Option<Instant>,
}

/// Whether a pass may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    /// Not before a pass ends or another one is wanted.
    OnChange,
    /// Not before then, unless something changes.
    At(Instant),
}

impl Party {
    fn used(&self, now: Instant) -> Duration {
        self.used + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether it wants the cores, or did so less than `pause` ago.
    fn is_active(&self, now: Instant, pause: Duration) -> bool {
        self.waiting + self.running > 0 || self.ended.is_some_and(|ended| now < ended + pause)
    }
}

impl Shares {
    /// A purpose, and the other one.
    fn pair(&mut self, purpose: Purpose) -> (&mut Party, &mut Party) {
        match purpose {
            Purpose::Scoring => (&mut self.scoring, &mut self.writing),
            Purpose::Writing => (&mut self.writing, &mut self.scoring),
        }
    }

    /// A pass is wanted.
    pub(super) fn arrive(&mut self, purpose: Purpose, now: Instant) {
        let (own, other) = self.pair(purpose);
        if !own.is_active(now, REST) {
            own.used = own.used.max(other.used(now));
        }
        own.waiting += 1;
    }

    /// Whether a pass that is wanted may start.
    pub(super) fn may_start(&mut self, purpose: Purpose, now: Instant) -> Answer {
        let (own, other) = self.pair(purpose);
        if other.running > 0 {
            return Answer::OnChange;
        }
        if !other.is_active(now, PAUSE) || own.used(now) <= other.used(now) {
            return Answer::Yes;
        }
        match other.ended.filter(|_| other.waiting == 0) {
            Some(ended) => Answer::At(ended + PAUSE),
            None => Answer::OnChange,
        }
    }

    /// Whether none runs or is wanted, and none did since this was asked last, but some ran before that. Told once.
    pub(super) fn have_come_to_rest(&mut self) -> bool {
        let rests = [&self.scoring, &self.writing].iter().all(|party| party.waiting + party.running == 0);
        if !rests || std::mem::take(&mut self.ran) {
            self.ran_before = true;
            return false;
        }
        std::mem::take(&mut self.ran_before)
    }

    /// A pass that may start does so.
    pub(super) fn start(&mut self, purpose: Purpose, now: Instant) {
        self.ran = true;
        let (own, _) = self.pair(purpose);
        own.waiting = own.waiting.saturating_sub(1);
        own.running += 1;
        own.since.get_or_insert(now);
    }

    /// A pass that was wanted isn't any more.
    pub(super) fn leave(&mut self, purpose: Purpose) {
        let (own, _) = self.pair(purpose);
        own.waiting = own.waiting.saturating_sub(1);
    }

    /// A pass has ended.
    pub(super) fn end(&mut self, purpose: Purpose, now: Instant) {
        let (own, _) = self.pair(purpose);
        own.running = own.running.saturating_sub(1);
        if own.running == 0 {
            own.used = own.used(now);
            own.since = None;
        }
        own.ended = Some(now);
    }
}
