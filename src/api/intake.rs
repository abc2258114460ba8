//! Bodies on their way in: each has to arrive in time, and all together take a bounded part of the memory.
//!
//! A request's share is what its `Content-Length` announces, or the longest body there may be until its end has shown
//! how long it is. It is held until the request is answered, since samples live on in what is scored. A request
//! that finds no room waits unread, which slows clients down instead of refusing them. None waits while it holds a part
//! of its share, so that two can't wait for each other.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

use super::ApiLimits;
use crate::telemetry::Metrics;

/// The unit in which memory is shared out, in bytes: small beside any request, and few enough of them for a semaphore.
const UNIT: u64 = 1 << 10;

/// The room for bodies, and the rules for them.
#[derive(Debug)]
pub(super) struct Intake {
    room: Arc<Semaphore>,
    units: u32,
    longest: u64,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl Intake {
    pub(super) fn new(limits: ApiLimits, metrics: Arc<Metrics>) -> Self {
        let units = units(limits.buffered_bytes as u64).clamp(1, Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX));
        let room = Arc::new(Semaphore::new(units as usize));
        Self { room, units, longest: limits.body_bytes as u64, patience: limits.receive, metrics }
    }

    /// Waits for a share of the room. A body that wants more than there is gets all of it.
    async fn share(&self, bytes: u64) -> Option<Share> {
        let wanted = units(bytes).min(self.units);
        let permit = match Arc::clone(&self.room).try_acquire_many_owned(wanted) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = self.metrics.body_waits();
                // Nobody closes the room.
                Arc::clone(&self.room).acquire_many_owned(wanted).await.ok()?
            }
        };
        Some(Share(Mutex::new(permit)))
    }
}

fn units(bytes: u64) -> u32 {
    bytes.div_ceil(UNIT).try_into().unwrap_or(u32::MAX)
}

/// Lets a request's body in under the rules.
pub(super) async fn receive(State(intake): State<Arc<Intake>>, request: Request, next: Next) -> Response {
    let hint = request.body().size_hint();
    let wanted = match hint.upper() {
        // It is refused without being read.
        Some(announced) if announced > intake.longest => 0,
        announced => announced.unwrap_or(intake.longest),
    };
    if wanted == 0 {
        return next.run(request).await;
    }
    let share = intake.share(wanted).await.map(Arc::new);
    let request = request.map(|body| {
        Body::new(ArrivingBody {
            body,
            received: 0,
            share: share.clone(),
            patience: intake.patience,
            deadline: Box::pin(sleep(intake.patience)),
        })
    });
    let response = next.run(request).await;
    drop(share);
    response
}

/// One request's part of the room, given back when it is dropped.
#[derive(Debug)]
struct Share(Mutex<OwnedSemaphorePermit>);

impl Share {
    /// Gives back what a body of so many bytes doesn't need.
    fn keep(&self, bytes: u64) {
        let mut permit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = permit.num_permits().saturating_sub(units(bytes) as usize);
        drop(permit.split(surplus));
    }
}

/// A body that fails when it hasn't come whole in time.
#[derive(Debug)]
struct ArrivingBody {
    body: Body,
    received: u64,
    share: Option<Arc<Share>>,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
}

/// A body that took too long to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooSlow {
    /// How long it was waited for.
    pub(super) patience: Duration,
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the body didn't come whole within {} s; send it faster, split the request, or raise --receive-seconds",
            self.patience.as_secs_f64()
        )
    }
}

impl std::error::Error for TooSlow {}

impl TooSlow {
    /// The one among an error's causes, if there is one.
    pub(super) fn among(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|cause| cause.downcast_ref().copied())
    }
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.deadline.as_mut().poll(context));
            return Poll::Ready(Some(Err(axum::Error::new(TooSlow { patience: self.patience }))));
        };
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.received += data.len() as u64;
        }
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(share) = self.share.take()
        {
            share.keep(self.received);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
