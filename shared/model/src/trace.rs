//! Traces: which request a slow sample was, in the words of W3C trace context.

use std::fmt;
use std::str::FromStr;

/// A span of a trace, as W3C trace context names them. Never the trace of all zeroes, which means
/// none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Trace {
    id: [u8; 16],
    span: [u8; 8],
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a traceparent: use 00-TRACE-SPAN-FLAGS with 32, 16 and 2 lower-case hexadecimal digits, \
     trace and span not all zeroes"
)]
pub struct ParseTraceError;

impl Trace {
    /// A span of a trace; `None` for the trace of all zeroes. A span of all zeroes is not known.
    pub const fn new(id: [u8; 16], span: [u8; 8]) -> Option<Self> {
        if u128::from_ne_bytes(id) == 0 { None } else { Some(Self { id, span }) }
    }

    /// The trace.
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The span; all zeroes when it is not known.
    pub const fn span(&self) -> [u8; 8] {
        self.span
    }

    /// The span, when it is known.
    pub fn known_span(&self) -> Option<[u8; 8]> {
        Some(self.span).filter(|span| *span != [0; 8])
    }

    /// The trace, 32 hexadecimal digits.
    pub fn id_hex(&self) -> String {
        hex(&self.id)
    }

    /// The span, 16 hexadecimal digits; `None` when it is not known.
    pub fn span_hex(&self) -> Option<String> {
        self.known_span().map(|span| hex(&span))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({}-{})", hex(&self.id), hex(&self.span))
    }
}

impl FromStr for Trace {
    type Err = ParseTraceError;

    /// Reads the header `traceparent`; what later versions add behind it is passed over.
    fn from_str(text: &str) -> Result<Self, ParseTraceError> {
        let mut parts = text.split('-');
        let mut part = |digits| parts.next().filter(|part| is_hex(part, digits));
        let (version, id, span, flags) = (part(2), part(32), part(16), part(2));
        let version = version.ok_or(ParseTraceError)?;
        let more = parts.next().is_some();
        if version == "ff" || (version == "00" && more) || flags.is_none() {
            return Err(ParseTraceError);
        }
        let id = id.and_then(|id| u128::from_str_radix(id, 16).ok()).ok_or(ParseTraceError)?;
        let span = span.and_then(|span| u64::from_str_radix(span, 16).ok());
        let span = span.filter(|span| *span != 0).ok_or(ParseTraceError)?;
        Self::new(id.to_be_bytes(), span.to_be_bytes()).ok_or(ParseTraceError)
    }
}

fn is_hex(part: &str, digits: usize) -> bool {
    part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_reads_back_as_its_trace_and_span() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace: Trace = text.parse().unwrap();
        assert_eq!(trace.id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.span_hex().as_deref(), Some("00f067aa0ba902b7"));
        assert_eq!(Trace::new(trace.id(), trace.span()), Some(trace));
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert_eq!(later.parse(), Ok(trace));
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<Trace>(), Err(ParseTraceError), "{text}");
        }
        assert_eq!(Trace::new([0; 16], [1; 8]), None);
        assert_eq!(Trace::new([1; 16], [0; 8]).unwrap().span_hex(), None);
    }
}
