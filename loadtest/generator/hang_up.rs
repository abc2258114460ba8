//! Clients that connect, send a whole request and leave: what a restarted trainer or an impatient proxy does.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

use crate::{Failure, client::Client, plan::Request};

/// Who hangs up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leavers {
    pub(crate) clients: usize,
    pub(crate) at_once: usize,
    pub(crate) stay: Duration,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seconds: f64,
    cut_short: bool,
    /// Clients that sent a whole request and left.
    left: u64,
    /// Clients that could not connect or send.
    broken: u64,
}

pub(crate) async fn run(
    client: &Client,
    requests: Vec<Request>,
    leavers: Leavers,
    limit: Duration,
) -> Result<Report, Failure> {
    let address = client.address().await?;
    let requests: Rc<[Vec<u8>]> = requests.iter().map(|request| client.raw(&request.body)).collect();
    let places = Arc::new(Semaphore::new(leavers.at_once));
    let (mut left, mut broken) = (0, 0);
    let started = Instant::now();
    let local = LocalSet::new();
    let work = local.run_until(async {
        let mut leaving = JoinSet::new();
        for number in 0..leavers.clients {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let requests = Rc::clone(&requests);
            leaving.spawn_local(async move {
                let _place = place;
                connect_and_leave(address, &requests[number % requests.len()], leavers.stay).await
            });
            while let Some(done) = leaving.try_join_next() {
                count(done.unwrap_or(Ok(())).is_ok(), &mut left, &mut broken);
            }
        }
        while let Some(done) = leaving.join_next().await {
            count(done.unwrap_or(Ok(())).is_ok(), &mut left, &mut broken);
        }
    });
    let cut_short = tokio::time::timeout(limit, work).await.is_err();
    Ok(Report { seconds: started.elapsed().as_secs_f64(), cut_short, left, broken })
}

fn count(sent: bool, left: &mut u64, broken: &mut u64) {
    *(if sent { left } else { broken }) += 1;
}

async fn connect_and_leave(address: SocketAddr, request: &[u8], stay: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    tokio::time::sleep(stay).await;
    Ok(())
}
