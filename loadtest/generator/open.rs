//! An open loop: requests arrive at random, whatever became of earlier ones, as a crowd of users does.
//!
//! Latency is counted from the moment a request should have been sent. Counted from the real sending, a server that
//! stalls would look the better the longer it stalls (coordinated omission).

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::{JoinSet, LocalSet};

use crate::{
    Failure,
    client::{Client, Ended},
    plan::Request,
    report::{Moments, Recorder, Report},
};

/// When requests arrive and what becomes of their replies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals {
    /// The mean number a second; the gaps are exponential (a Poisson process).
    pub(crate) rate: f64,
    /// How long they arrive.
    pub(crate) window: Duration,
    /// How fast a reply must be to count as good.
    pub(crate) good_within: Option<Duration>,
    pub(crate) seed: u64,
}

impl Arrivals {
    /// The moments of arrival, counted from the start.
    fn draw(self) -> impl Iterator<Item = Duration> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let gaps = std::iter::repeat_with(move || Duration::from_secs_f64(-(1.0 - random.f64()).ln() / self.rate));
        gaps.scan(Duration::ZERO, |moment, gap| {
            *moment += gap;
            Some(*moment)
        })
        .take_while(move |&moment| moment < self.window)
    }
}

/// Sends the requests, round and round, as they arrive; gives up `limit` after the start.
pub(crate) async fn run(
    client: Client,
    requests: Vec<Request>,
    arrivals: Arrivals,
    limit: Duration,
) -> Result<Report, Failure> {
    if !(arrivals.rate.is_finite() && arrivals.rate > 0.0) {
        return Err("--rate must be above 0".into());
    }
    let recorder = Rc::new(RefCell::new(Recorder::new(arrivals.good_within, Some(arrivals.window))?));
    let requests: Rc<[Request]> = requests.into();
    let started = Instant::now();
    let all = LocalSet::new();
    let work = all.run_until(async {
        let mut replies = JoinSet::new();
        for (position, intended) in arrivals.draw().enumerate() {
            tokio::time::sleep_until((started + intended).into()).await;
            let (client, requests, recorder) = (client.clone(), Rc::clone(&requests), Rc::clone(&recorder));
            replies.spawn_local(async move {
                let request = &requests[position % requests.len()];
                let ended = client.send(request.body(), request.leaves_after).await;
                let now = started.elapsed();
                let sent = match &ended {
                    Ended::Replied(reply) => reply.sent.saturating_duration_since(started),
                    Ended::Left | Ended::Broken => now,
                };
                recorder.borrow_mut().record(request, &ended, Moments { intended, sent, ended: now });
            });
        }
        while replies.join_next().await.is_some() {}
    });
    let cut_short = tokio::time::timeout(limit, work).await.is_err();
    let report = recorder.borrow().report(started.elapsed(), arrivals.window, cut_short);
    Ok(report)
}
