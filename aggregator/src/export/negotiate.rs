//! Which format a scraper gets, by its `Accept` header (RFC 9110, §12.5.1).
//!
//! The highest `q` wins; among equals the format that says most: protobuf, OpenMetrics, text. A
//! wildcard asks for nothing in particular and gets text. Whoever accepts nothing there is gets text
//! as well, because a scrape that fails says less than one in the wrong words.
//! Bounds: [`RANGES_MAX`] alternatives are read.

use super::family::Families;
use super::text::{self, Dialect};

/// Alternatives of one request that are read; scrapers send up to eight.
const RANGES_MAX: usize = 32;

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.0 text.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

impl Format {
    /// The content type to serve it as.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; \
                 proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The sheet in it.
    pub fn render(self, families: &Families) -> Vec<u8> {
        match self {
            Self::Text => text::render(families, Dialect::Prometheus).into_bytes(),
            Self::OpenMetrics => text::render(families, Dialect::OpenMetrics).into_bytes(),
            Self::Protobuf => super::protobuf::render(families),
        }
    }
}

/// The format these `Accept` headers ask for.
pub fn negotiate<'a>(accept: impl Iterator<Item = &'a str>) -> Format {
    let ranges = accept.flat_map(|value| value.split(',')).take(RANGES_MAX);
    let wanted = ranges.filter_map(range).filter(|(quality, _)| *quality > 0);
    wanted.max().map_or(Format::Text, |(_, format)| format)
}

/// One alternative: how much it is wanted, in thousandths, and what it means; `None` for what is
/// not served or not understood.
fn range(text: &str) -> Option<(u16, Format)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut quality, mut parameters) = (1_000, Vec::new());
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
        if name == "q" {
            quality = thousandths(value)?;
        } else {
            parameters.push((name, value));
        }
    }
    let is = |wanted: &str, fits: &[&str]| {
        let mut given = parameters.iter().filter(|(name, _)| name == wanted);
        given.all(|(_, value)| fits.contains(value))
    };
    let format = match kind.as_str() {
        "application/vnd.google.protobuf"
            if is("proto", &["io.prometheus.client.MetricFamily"])
                && is("encoding", &["delimited"]) =>
        {
            Format::Protobuf
        }
        "application/openmetrics-text" if is("version", &["1.0.0", "0.0.1"]) => Format::OpenMetrics,
        "text/plain" if is("version", &["0.0.4"]) => Format::Text,
        "text/*" | "*/*" => Format::Text,
        _ => return None,
    };
    Some((quality, format))
}

/// A `q` from 0 to 1 with up to three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let value: f64 = text.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=1.0).contains(&value).then(|| (value * 1e3).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOBUF: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited";

    fn chosen(accept: &str) -> Format {
        negotiate([accept].into_iter())
    }

    #[test]
    fn real_scrapers_get_what_they_ask_for_first() {
        // Prometheus 2.42 with native histograms, the same without, and 3.x.
        let native = format!(
            "{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        );
        assert_eq!(chosen(&native), Format::Protobuf);
        let plain = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(chosen(plain), Format::OpenMetrics);
        let third = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(chosen(third), Format::OpenMetrics);
        assert_eq!(chosen(&format!("{PROTOBUF};q=0.6,{third}")), Format::Protobuf);
    }

    #[test]
    fn the_highest_quality_wins_and_0_means_never() {
        assert_eq!(chosen(&format!("{PROTOBUF};q=0.3,text/plain;q=0.7")), Format::Text);
        assert_eq!(chosen(&format!("{PROTOBUF};q=0,*/*")), Format::Text);
        assert_eq!(chosen(&format!("text/plain , {PROTOBUF} ; q=1.0")), Format::Protobuf);
        assert_eq!(chosen("application/openmetrics-text;q=0.001"), Format::OpenMetrics);
    }

    #[test]
    fn what_is_not_served_is_passed_over() {
        for accept in [
            "",
            "application/json",
            "*/*",
            "application/openmetrics-text;version=2.0.0",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            "application/vnd.google.protobuf;proto=other",
            "application/openmetrics-text;q=7",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;;",
            ";;;,,,q=1",
        ] {
            assert_eq!(chosen(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn alternatives_are_read_up_to_the_bound_and_over_several_headers() {
        let junk = "application/json,".repeat(RANGES_MAX - 1);
        assert_eq!(chosen(&format!("{junk}{PROTOBUF}")), Format::Protobuf);
        assert_eq!(chosen(&format!("a/b,{junk}{PROTOBUF}")), Format::Text);
        assert_eq!(negotiate(["text/plain;q=0.1", PROTOBUF].into_iter()), Format::Protobuf);
    }
}
