//! What an answer means: taken, to be tried again, or refused for good. Pure.
//!
//! Source: OTLP specification, "Failures": over gRPC the codes below are tried again,
//! RESOURCE_EXHAUSTED only with a RetryInfo that says when; over HTTP 429, 502, 503 and 504, not
//! before `Retry-After`. A partial success was taken; what it rejected is never sent again.

use lens_model::{Nanos, UnixNanos};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Longest a receiver may ask to be left alone for: it is asked again at the latest then.
pub const RETRY_AFTER_MAX: Nanos = Nanos::from_secs(600);

/// Most of what a receiver said that is kept, characters.
const SAID_MAX: usize = 300;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it, but for what it rejected.
    Taken {
        /// Data points it did not keep.
        rejected: u64,
        /// What it said about them; empty when nothing.
        said: String,
    },
    /// It may be tried again.
    Later {
        /// Not before this long; `None` when the receiver did not say.
        after: Option<Nanos>,
        /// Why.
        said: String,
    },
    /// Trying again would change nothing.
    Refused {
        /// Why.
        said: String,
    },
}

/// What a response means.
pub fn response(response: &ExportMetricsServiceResponse) -> Outcome {
    let partial = response.partial_success.clone().unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_data_points).unwrap_or(0);
    Outcome::Taken { rejected, said: cut(&partial.error_message) }
}

/// What a gRPC status means.
pub fn status(status: &Status) -> Outcome {
    let said = cut(&format!("{:?}: {}", status.code(), status.message()));
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let after = asked.map(|delay| Nanos::from(delay).min(RETRY_AFTER_MAX));
    // A status with a source was made here: the receiver was not reached, or broke off.
    let local = std::error::Error::source(status).is_some();
    let again = match status.code() {
        Code::ResourceExhausted => after.is_some(),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        _ => local,
    };
    if again { Outcome::Later { after, said } } else { Outcome::Refused { said } }
}

/// What an HTTP answer means; `retry_after` is the header of that name.
pub fn http(code: u16, retry_after: Option<&str>, body: &[u8], now: UnixNanos) -> Outcome {
    match code {
        // Who answers with something else than the message has taken it nevertheless.
        200..=299 => response(&ExportMetricsServiceResponse::decode(body).unwrap_or_default()),
        429 | 502 | 503 | 504 => Outcome::Later {
            after: retry_after.and_then(|text| delay(text, now)),
            said: code.to_string(),
        },
        _ => Outcome::Refused { said: code.to_string() },
    }
}

/// `Retry-After`: seconds, or an instant as HTTP writes it.
fn delay(text: &str, now: UnixNanos) -> Option<Nanos> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(secs) => Nanos::from_secs(secs),
        Err(_) => {
            let at = time::OffsetDateTime::parse(
                &text.replace("GMT", "+0000"),
                &time::format_description::well_known::Rfc2822,
            );
            let at = u64::try_from(at.ok()?.unix_timestamp_nanos()).ok()?;
            UnixNanos(at).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn cut(text: &str) -> String {
    text.chars().take(SAID_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;
    use std::time::Duration;
    use tonic_types::ErrorDetails;

    const NOW: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

    fn with_retry_info(code: Code, secs: u64) -> Status {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(secs)));
        Status::with_error_details(code, "busy", details)
    }

    #[test]
    fn the_codes_of_the_specification_are_tried_again_and_no_others() {
        let again = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ];
        for number in 1..=16 {
            let code = Code::from(number);
            let is = matches!(status(&Status::new(code, "x")), Outcome::Later { .. });
            assert_eq!(is, again.contains(&code), "{code:?}");
        }
    }

    #[test]
    fn an_exhausted_receiver_is_asked_again_only_when_it_says_when() {
        let exhausted = with_retry_info(Code::ResourceExhausted, 7);
        let Outcome::Later { after, .. } = status(&exhausted) else { panic!("refused") };
        assert_eq!(after, Some(Nanos::from_secs(7)));
        let Outcome::Later { after, .. } = status(&with_retry_info(Code::Unavailable, 86_400))
        else {
            panic!("refused")
        };
        assert_eq!(after, Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn an_invalid_request_is_refused_even_with_retry_info() {
        let invalid = with_retry_info(Code::InvalidArgument, 1);
        assert!(matches!(status(&invalid), Outcome::Refused { .. }));
    }

    #[test]
    fn a_receiver_that_was_not_reached_is_tried_again() {
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert!(matches!(status(&broken), Outcome::Later { after: None, .. }), "{broken:?}");
    }

    #[test]
    fn http_is_tried_again_for_four_codes_and_not_before_it_says() {
        let later = |code, text| http(code, text, b"", NOW);
        for code in [400, 401, 404, 413, 500, 501, 505, 302] {
            assert!(matches!(later(code, Some("1")), Outcome::Refused { .. }), "{code}");
        }
        for code in [429, 502, 503, 504] {
            let after = |text| match later(code, text) {
                Outcome::Later { after, .. } => after,
                other => panic!("{other:?}"),
            };
            assert_eq!(after(Some("3")), Some(Nanos::from_secs(3)));
            assert_eq!(after(Some("99999999")), Some(RETRY_AFTER_MAX));
            // 20 s after NOW.
            assert_eq!(after(Some("Mon, 21 Sep 2026 14:13:40 GMT")), Some(Nanos::from_secs(20)));
            assert_eq!(after(Some("soon")), None);
            assert_eq!(after(None), None);
        }
    }

    #[test]
    fn what_a_partial_success_rejected_is_counted_and_taken() {
        let partial_success = Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too\nold".into(),
        });
        let body = ExportMetricsServiceResponse { partial_success }.encode_to_vec();
        let taken = Outcome::Taken { rejected: 3, said: "too old".into() };
        assert_eq!(http(200, None, &body, NOW), taken);
        assert_eq!(http(200, None, b"", NOW), Outcome::Taken { rejected: 0, said: String::new() });
        assert_eq!(
            http(202, None, b"<html>", NOW),
            Outcome::Taken { rejected: 0, said: String::new() }
        );
    }
}
