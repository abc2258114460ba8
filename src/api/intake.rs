//! Bodies on their way in: each has to arrive in time, and all together take a bounded part of the memory.
//!
//! A request's share of the room is what has arrived of its body, whatever it announced. It is held until the request is
//! answered, since samples live on in what is scored. What finds no room waits unread, which slows clients down instead
//! of refusing them. A body of which nothing came yet waits for as long as it takes. One that came in part is given up
//! when its time is over, so that bodies in part can't wait for each other for ever.
//!
//! A body that nobody wants is read to its end all the same, and thrown away: a connection that is closed with bytes unread
//! is reset, and a client that still sends loses the answer that was on its way.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    runtime::Handle,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, timeout},
};

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    ApiLimits, Closing,
    problem::{Problem, ProblemType},
};
use crate::telemetry::{Metrics, WaitGuard};

/// Where jobs are sent.
const JOBS: &str = "/v1/jobs";
/// The unit in which memory is shared out, in bytes: small beside any request, and few enough of them for a semaphore.
const UNIT: u64 = 1 << 10;

/// The room for bodies, and the rules for them.
#[derive(Debug)]
pub(super) struct Intake {
    room: Arc<Semaphore>,
    units: usize,
    patience: Duration,
    closing: Closing,
    metrics: Arc<Metrics>,
}

impl Intake {
    pub(super) fn new(limits: ApiLimits, closing: Closing, metrics: Arc<Metrics>) -> Self {
        let units = units(limits.buffered_bytes as u64).clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(units));
        Self { room, units, patience: limits.receive, closing, metrics }
    }
}

fn units(bytes: u64) -> usize {
    bytes.div_ceil(UNIT).try_into().unwrap_or(usize::MAX)
}

/// Lets a request's body in under the rules.
pub(super) async fn receive(State(intake): State<Arc<Intake>>, request: Request, next: Next) -> Response {
    // Nothing comes. A job is kept as it comes, a few lines at a time.
    if request.body().is_end_stream() || request.uri().path() == JOBS {
        return next.run(request).await;
    }
    // Who asks whether to send it waits for the answer first.
    let comes_anyway = !request.headers().contains_key(header::EXPECT);
    let share = Arc::new(Share::default());
    let request = request.map(|body| {
        Body::new(ArrivingBody {
            body,
            received: 0,
            deadline: Box::pin(sleep(intake.patience)),
            given_up: Box::pin(intake.closing.given_up()),
            share: Arc::clone(&share),
            waiting: None,
            comes_anyway,
            intake: Arc::clone(&intake),
        })
    });
    let response = next.run(request).await;
    drop(share);
    response
}

/// One request's part of the room, given back when it is dropped.
#[derive(Debug, Default)]
struct Share(Mutex<Option<OwnedSemaphorePermit>>);

impl Share {
    fn units(&self) -> usize {
        self.lock().as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&self, more: OwnedSemaphorePermit) {
        let mut held = self.lock();
        match held.as_mut() {
            Some(permit) => permit.merge(more),
            None => *held = Some(more),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a body that waits for room.
struct Waiting {
    data: Bytes,
    room: Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>,
    _counted: WaitGuard,
}

/// A body that takes room as it arrives, and fails when it hasn't come whole in time.
struct ArrivingBody {
    body: Body,
    received: u64,
    deadline: Pin<Box<Sleep>>,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    share: Arc<Share>,
    waiting: Option<Waiting>,
    /// Whether its client sends it whatever becomes of it.
    comes_anyway: bool,
    intake: Arc<Intake>,
}

impl ArrivingBody {
    /// Takes room for what has come; without any, it waits.
    fn take_in(&mut self, data: Bytes) -> Option<Bytes> {
        let Intake { room, units: all, metrics, .. } = &*self.intake;
        // A body that wants more than there is gets all of it.
        let wanted = units(self.received + data.len() as u64).min(*all).saturating_sub(self.share.units());
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        match Arc::clone(room).try_acquire_many_owned(wanted) {
            Ok(permit) => {
                self.share.add(permit);
                self.received += data.len() as u64;
                Some(data)
            }
            Err(_) => {
                let room = Box::pin(Arc::clone(room).acquire_many_owned(wanted));
                self.waiting = Some(Waiting { data, room, _counted: metrics.body_waits() });
                None
            }
        }
    }

    /// Waits for room for what has come.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        match waiting.room.as_mut().poll(context) {
            Poll::Ready(permit) => {
                // Nobody closes the room.
                permit.into_iter().for_each(|permit| self.share.add(permit));
                if self.received == 0 {
                    // The wait was the server's, not the client's.
                    self.deadline.as_mut().reset(Instant::now() + self.intake.patience);
                }
                let data = self.waiting.take().map(|waiting| waiting.data).unwrap_or_default();
                self.received += data.len() as u64;
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Pending if self.received == 0 => self.poll_given_up(context).map(|late| Some(Err(late))),
            Poll::Pending => self.poll_deadline(context).map(|late| Some(Err(late))),
        }
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<axum::Error> {
        if let Poll::Ready(late) = self.poll_given_up(context) {
            return Poll::Ready(late);
        }
        ready!(self.deadline.as_mut().poll(context));
        self.comes_anyway = false;
        Poll::Ready(axum::Error::new(NotWhole::TooSlow { patience: self.intake.patience }))
    }

    fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<axum::Error> {
        self.given_up.as_mut().poll(context).map(|()| axum::Error::new(NotWhole::GivenUp))
    }
}

/// Why a body is waited for no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotWhole {
    /// It took too long to arrive.
    #[error(
        "the body didn't come whole within {} s; send it faster, split the request, or raise --receive-seconds",
        patience.as_secs_f64()
    )]
    TooSlow {
        /// How long it was waited for.
        patience: Duration,
    },
    /// The server ends.
    #[error("the server is shutting down and the body hadn't come whole; send the request again")]
    GivenUp,
}

impl NotWhole {
    /// The one among an error's causes, if there is one.
    pub(super) fn among(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|cause| cause.downcast_ref().copied())
    }
}

impl Drop for ArrivingBody {
    /// Reads on where nobody wants the rest, for as long as a body may take.
    fn drop(&mut self) {
        if !self.comes_anyway || self.body.is_end_stream() {
            return;
        }
        // None is left where the whole server ends.
        if let Ok(runtime) = Handle::try_current() {
            let rest = timeout(self.intake.patience, throw_away(std::mem::take(&mut self.body)));
            let given_up = self.intake.closing.given_up();
            runtime.spawn(async move {
                tokio::select! {
                    _ = rest => {}
                    () = given_up => {}
                }
            });
        }
    }
}

/// Reads what comes of a body until it ends or breaks off.
async fn throw_away(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

impl From<NotWhole> for Problem {
    fn from(reason: NotWhole) -> Self {
        let kind = match reason {
            NotWhole::TooSlow { .. } => ProblemType::BodyTooSlow,
            NotWhole::GivenUp => ProblemType::ModelUnavailable,
        };
        Self::new(kind, reason.to_string())
    }
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Reading asks for it.
        self.comes_anyway = true;
        loop {
            if let Some(data) = ready!(self.poll_room(context)) {
                return Poll::Ready(Some(data.map(Frame::data)));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                return self.poll_deadline(context).map(|late| Some(Err(late)));
            };
            let data = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            };
            if let Some(data) = self.take_in(data) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.waiting {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
