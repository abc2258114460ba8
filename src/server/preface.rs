//! A bound on the time before it's known which version of HTTP a client speaks.
//!
//! The bounds of hyper's protocols begin where it has chosen one. Before that it reads for as long as the bytes could
//! still become HTTP/2's preface, which they can for ever where none come.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How every connection of HTTP/2 starts (RFC 9113, section 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose reads fail when its client doesn't say in time which version it speaks.
#[derive(Debug)]
pub(super) struct Preface<S> {
    stream: S,
    /// How much of HTTP/2's preface has come.
    matched: usize,
    /// When the client must have said it; nothing once it has.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Preface<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, matched: 0, deadline: Some(Box::pin(sleep(patience))) }
    }

    fn observe(&mut self, bytes: &[u8]) {
        let expected = &HTTP2[self.matched..];
        let length = bytes.len().min(expected.len());
        self.matched += length;
        if bytes[..length] != expected[..length] || self.matched == HTTP2.len() {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preface<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(deadline) = &mut this.deadline else { return read };
        if read.is_ready() {
            this.observe(&buffer.filled()[before..]);
            return read;
        }
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, advance},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn connection() -> (DuplexStream, Preface<DuplexStream>) {
        let (client, server) = duplex(64);
        (client, Preface::new(server, PATIENCE))
    }

    /// Waits for more than there is, for as long as it takes to be refused.
    async fn waits(mut server: Preface<DuplexStream>) -> (io::ErrorKind, Duration) {
        let begun = Instant::now();
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        (error.kind(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_says_what_he_speaks_is_not_waited_for() {
        for begun in [&b""[..], b"P", &HTTP2[..23]] {
            let (mut client, server) = connection();
            client.write_all(begun).await.unwrap();
            let (kind, waited) = waits(server).await;
            assert_eq!(kind, io::ErrorKind::TimedOut);
            assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{begun:?}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_it_may_be_silent_for_long() {
        for said in [&b"GET"[..], b"POST / HTTP/1.1", HTTP2] {
            let (mut client, mut server) = connection();
            // One byte at a time, as slow lines bring them.
            for byte in said {
                client.write_all(&[*byte]).await.unwrap();
                let mut read = [0];
                server.read_exact(&mut read).await.unwrap();
                assert_eq!(read, [*byte]);
            }
            advance(PATIENCE * 10).await;
            let answer = tokio::join!(server.read_u8(), async {
                advance(PATIENCE).await;
                client.write_u8(7).await.unwrap();
            });
            assert_eq!(answer.0.unwrap(), 7, "{said:?}");
        }
    }
}
