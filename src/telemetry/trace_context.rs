//! Which trace a request belongs to, as its client says (W3C Trace Context).

use std::fmt;

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace of a request, and its part that waits for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    trace: u128,
    parent: u64,
    sampled: bool,
}

impl TraceContext {
    /// The one that the headers of a request tell of, if they tell of one.
    pub(crate) fn among(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// Version, trace, parent and flags, in lower-case hexadecimal digits; later versions may say more behind them.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let lower = part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            lower.then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let more = parts.next().is_some();
        let sound = version != 0xff && trace != 0 && parent != 0 && !(version == 0 && more);
        let parent = u64::try_from(parent).ok()?;
        sound.then_some(Self { trace, parent, sampled: flags & 1 == 1 })
    }

    /// A part of a trace.
    #[cfg(feature = "traces")]
    pub(crate) fn new(trace: u128, parent: u64, sampled: bool) -> Self {
        Self { trace, parent, sampled }
    }

    /// The trace, as a number.
    #[cfg(feature = "traces")]
    pub(crate) fn trace(self) -> u128 {
        self.trace
    }

    /// The part of the trace that waits.
    #[cfg(feature = "traces")]
    pub(crate) fn parent(self) -> u64 {
        self.parent
    }

    /// Whether whoever began the trace wants it kept.
    #[cfg(feature = "traces")]
    pub(crate) fn is_sampled(self) -> bool {
        self.sampled
    }

    /// The trace.
    pub(crate) fn trace_id(self) -> impl fmt::Display {
        Trace(self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, u8::from(self.sampled))
    }
}

struct Trace(u128);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_standard_calls_invalid_is_no_trace() {
        // W3C Trace Context, section 3.2.2.
        let read = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(read.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!((read.parent, read.sampled), (0x00f0_67aa_0ba9_02b7, true));
        for (text, valid) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("", false),
        ] {
            assert_eq!(TraceContext::parse(text).is_some(), valid, "{text}");
        }
    }
}
