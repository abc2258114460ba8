//! The turns in simulated time, and that they hold on threads.

use std::{sync::mpsc, thread, time::Duration};

use proptest::prelude::*;

use super::{
    shares::{PAUSE, REST},
    *,
};
use crate::fake::FakeControl;

/// Passes of one purpose that follow one another, each after a pause, from a point in time on.
struct Stream {
    purpose: Purpose,
    pass: Duration,
    pause: Duration,
    /// When the next pass is wanted, and whether that was told.
    wanted: Duration,
    waits: bool,
    ends: Option<Duration>,
    had: Duration,
    longest_wait: Duration,
}

impl Stream {
    fn new(purpose: Purpose, pass: u64, pause: u64, from: u64) -> Self {
        let [pass, pause, wanted] = [pass, pause, from].map(Duration::from_micros);
        let zero = Duration::ZERO;
        Self { purpose, pass, pause, wanted, waits: false, ends: None, had: zero, longest_wait: zero }
    }
}

/// Lets streams run for so long, in steps of a tenth of a millisecond.
fn simulate(streams: &mut [Stream], time: Duration) {
    let start = Instant::now();
    let mut shares = Shares::default();
    let mut now = Duration::ZERO;
    while now < time {
        for stream in streams.iter_mut() {
            if stream.ends.is_some_and(|ends| ends <= now) {
                shares.end(stream.purpose, start + now);
                stream.ends = None;
                stream.wanted = now + stream.pause;
            }
            if stream.ends.is_none() && !stream.waits && stream.wanted <= now {
                shares.arrive(stream.purpose, start + now);
                stream.waits = true;
            }
        }
        for stream in streams.iter_mut().filter(|stream| stream.waits) {
            if shares.may_start(stream.purpose, start + now) == Answer::Yes {
                shares.start(stream.purpose, start + now);
                stream.waits = false;
                stream.ends = Some(now + stream.pass);
                stream.had += stream.pass;
                stream.longest_wait = stream.longest_wait.max(now - stream.wanted);
            }
        }
        let running = |purpose| streams.iter().any(|stream| stream.purpose == purpose && stream.ends.is_some());
        assert!(!running(Purpose::Scoring) || !running(Purpose::Writing), "both at {now:?}");
        now += Duration::from_micros(100);
    }
}

proptest! {
    #[test]
    fn both_purposes_get_half_of_the_time_whatever_their_passes_take(
        scoring in 2_000..300_000_u64,
        writing in 2_000..80_000_u64,
        pauses in (0..5_000_u64, 0..5_000_u64),
        first in 0..20_000_u64,
    ) {
        let time = Duration::from_secs(20);
        let mut streams = [
            Stream::new(Purpose::Scoring, scoring, pauses.0, 0),
            Stream::new(Purpose::Writing, writing, pauses.1, first),
        ];
        simulate(&mut streams, time);
        let [scored, written] = streams.map(|stream| stream.had.as_secs_f64());
        let all = scored + written;
        prop_assert!((scored / all - 0.5).abs() < 0.03, "{scored} and {written}");
        // Where passes are as short as pauses, the pauses are what is lost.
        let lost = (pauses.0 + pauses.1) as f64 / scoring.min(writing) as f64;
        prop_assert!(all / time.as_secs_f64() > 0.95 - lost, "{all} of {time:?}");
    }

    #[test]
    fn sessions_of_one_purpose_run_side_by_side_and_starve_nobody(
        passes in prop::collection::vec(1_000..60_000_u64, 2..5),
        writing in 2_000..60_000_u64,
    ) {
        let mut streams: Vec<_> = passes.iter().map(|pass| Stream::new(Purpose::Scoring, *pass, 100, 0)).collect();
        streams.push(Stream::new(Purpose::Writing, writing, 1_000, 5_000));
        simulate(&mut streams, Duration::from_secs(10));
        let longest = passes.iter().copied().max().unwrap_or(0);
        for stream in &streams {
            // Until the other purpose has had as much, its pauses included, and the pass that it then runs.
            let most = Duration::from_micros(4 * (longest + writing)) + PAUSE;
            prop_assert!(stream.longest_wait <= most, "{:?} waited {:?}", stream.purpose, stream.longest_wait);
            prop_assert!(stream.had > Duration::ZERO);
        }
    }
}

#[test]
fn alone_nobody_waits() {
    let mut streams = [Stream::new(Purpose::Scoring, 5_000, 0, 0), Stream::new(Purpose::Scoring, 3_000, 0, 0)];
    simulate(&mut streams, Duration::from_secs(2));
    assert!(streams.iter().all(|stream| stream.longest_wait.is_zero()));
}

#[test]
fn a_rest_earns_nothing() {
    let start = Instant::now();
    let mut shares = Shares::default();
    let mut now = start;
    let mut pass = |shares: &mut Shares, purpose, length: Duration| {
        shares.arrive(purpose, now);
        assert_eq!(shares.may_start(purpose, now), Answer::Yes);
        shares.start(purpose, now);
        now += length;
        shares.end(purpose, now);
        now
    };
    pass(&mut shares, Purpose::Writing, Duration::from_millis(1));
    // A minute of scores while nothing is written.
    let before = pass(&mut shares, Purpose::Scoring, Duration::from_secs(60));
    let now = pass(&mut shares, Purpose::Writing, Duration::from_millis(30));
    assert!(now - before < REST);
    shares.arrive(Purpose::Scoring, now);
    assert_eq!(shares.may_start(Purpose::Scoring, now), Answer::Yes, "writing has had its turn");
}

#[test]
fn who_gives_up_waiting_holds_nobody_up() {
    let turns = Turns::default();
    let control = FakeControl::new();
    control.close();
    let mut scoring = InTurns::new(control.executor(), turns.clone(), Purpose::Scoring, Arc::default());
    let mut writing = InTurns::new(control.executor(), turns.clone(), Purpose::Writing, Arc::default());
    let batch = || {
        let input = karat_rules::domain::TokenizedInput::new(vec![7], vec![0], 0..1, Default::default()).unwrap();
        TokenBatch::single(Arc::new(input))
    };
    let cancel = Cancellation::new();
    let (began, begun) = mpsc::channel();
    thread::scope(|scope| {
        let scored = scope.spawn(|| scoring.run(&batch(), &Cancellation::new()));
        control.wait_for_held(1);
        let written = scope.spawn(|| {
            began.send(()).unwrap();
            writing.run(&batch(), &cancel)
        });
        begun.recv().unwrap();
        cancel.cancel();
        assert!(matches!(written.join().unwrap(), Err(RuntimeError::Cancelled)));
        assert_eq!(control.batches().len(), 1, "the other pass never began");
        control.open();
        assert!(scored.join().unwrap().is_ok());
    });
    assert!(scoring.run(&batch(), &Cancellation::new()).is_ok());
}

#[test]
fn a_rest_is_told_once_when_nothing_ran_for_a_while_after_passes() {
    let mut shares = Shares::default();
    let now = Instant::now();
    assert!(!shares.have_come_to_rest(), "nothing ran yet");
    for purpose in [Purpose::Scoring, Purpose::Writing] {
        shares.arrive(purpose, now);
        assert!(!shares.have_come_to_rest());
        shares.start(purpose, now);
        assert!(!shares.have_come_to_rest());
        shares.end(purpose, now);
        assert!(!shares.have_come_to_rest(), "it ran since this was asked last");
        assert!(shares.have_come_to_rest());
        assert!(!shares.have_come_to_rest());
    }
}
