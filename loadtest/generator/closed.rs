//! A closed loop: each client waits for its reply before it sends again, as trainers do.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::{JoinSet, LocalSet};

use crate::{
    Failure,
    client::{Client, Ended},
    plan::Request,
    report::{Moments, Recorder, Report},
    run::RunOptions,
};

/// Who sends, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    /// How many they are.
    pub(crate) count: usize,
    /// The training run that their requests belong to.
    pub(crate) run: RunOptions,
    /// Send the workload again and again for this long, instead of once.
    pub(crate) seconds: Option<Duration>,
}

/// What the clients of one run share.
struct Run {
    client: Client,
    requests: Vec<Request>,
    clients: Clients,
    next: Cell<usize>,
    started: Instant,
    recorder: RefCell<Recorder>,
}

/// Sends the requests, and gives up after `limit`.
pub(crate) async fn run(
    client: Client,
    requests: Vec<Request>,
    clients: Clients,
    limit: Duration,
) -> Result<Report, Failure> {
    let run = Rc::new(Run {
        client,
        requests,
        clients,
        next: Cell::new(0),
        started: Instant::now(),
        recorder: RefCell::new(Recorder::new(None, None)?),
    });
    let local = LocalSet::new();
    let mut tasks = JoinSet::new();
    for _ in 0..run.clients.count {
        tasks.spawn_local_on(one_client(Rc::clone(&run)), &local);
    }
    let all = local.run_until(async { while tasks.join_next().await.is_some() {} });
    let cut_short = tokio::time::timeout(limit, all).await.is_err();
    let elapsed = run.started.elapsed();
    let report = run.recorder.borrow().report(elapsed, elapsed, cut_short);
    Ok(report)
}

async fn one_client(run: Rc<Run>) {
    while let Some((number, request)) = run.take() {
        let began = run.started.elapsed();
        let body = run.clients.run.body(request, number);
        let ended = run.client.send(body, request.leaves_after).await;
        let moments = Moments { intended: began, sent: began, ended: run.started.elapsed() };
        run.recorder.borrow_mut().record(request, &ended, moments);
        if matches!(ended, Ended::Broken) {
            // A server that is gone would otherwise be asked as fast as a core can.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Run {
    /// The next request, with how many were sent before it.
    fn take(&self) -> Option<(usize, &Request)> {
        let number = self.next.replace(self.next.get() + 1);
        let request = match self.clients.seconds {
            None => self.requests.get(number),
            Some(seconds) if self.started.elapsed() < seconds => self.requests.get(number % self.requests.len()),
            Some(_) => None,
        };
        request.map(|request| (number, request))
    }
}
