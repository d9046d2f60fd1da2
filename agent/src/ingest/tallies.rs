//! What each listener counted and refused, for `/status` and `/metrics`.
//!
//! Bounds: listeners × reasons, both fixed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::refusal::{Refusal, Refused};

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP.
    OtlpHttp,
    /// DogStatsD over either kind of socket.
    Dogstatsd,
}

impl Listener {
    /// Every way in.
    pub const ALL: [Self; 3] = [Self::OtlpGrpc, Self::OtlpHttp, Self::Dogstatsd];

    /// Its section in the configuration, and its label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::Dogstatsd => "dogstatsd",
        }
    }
}

/// What one listener came to.
#[derive(Debug)]
pub struct Tally {
    exports: AtomicU64,
    repeats: AtomicU64,
    points: AtomicU64,
    samples: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            exports: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            points: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Tally {
    /// Notes what a message came to.
    pub fn counted(&self, points: u64, samples: u64, refused: &Refused) {
        self.points.fetch_add(points, Ordering::Relaxed);
        self.samples.fetch_add(samples, Ordering::Relaxed);
        refused.iter().for_each(|(why, count)| self.refuse(why, count));
    }

    /// Notes a message, and whether it had been seen before.
    pub fn export(&self, repeated: bool) {
        self.exports.fetch_add(1, Ordering::Relaxed);
        self.repeats.fetch_add(u64::from(repeated), Ordering::Relaxed);
    }

    /// Notes a refusal.
    pub fn refuse(&self, why: Refusal, count: u64) {
        self.refused[why as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Messages that came.
    pub fn exports(&self) -> u64 {
        get(&self.exports)
    }

    fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL.iter().map(|why| (why.label(), get(&self.refused[*why as usize])))
    }

    /// As JSON; reasons that never were are left out.
    pub fn json(&self) -> Value {
        let refused: BTreeMap<_, _> = self.refused().filter(|(_, count)| *count > 0).collect();
        json!({
            "messages_total": get(&self.exports),
            "messages_repeated_total": get(&self.repeats),
            "points_total": get(&self.points),
            "samples_total": get(&self.samples),
            "refused": refused,
        })
    }
}

/// What all listeners came to.
#[derive(Debug, Default)]
pub struct Tallies([Tally; Listener::ALL.len()]);

impl Tallies {
    /// That of one listener.
    pub fn of(&self, listener: Listener) -> &Tally {
        &self.0[listener as usize]
    }

    /// As Prometheus text, for these listeners.
    pub fn exposition(&self, listeners: &[Listener]) -> String {
        let mut out = String::new();
        type Read = fn(&Tally) -> u64;
        let families: [(&str, &str, Read); 4] = [
            ("messages_total", "Messages that came in.", |tally| get(&tally.exports)),
            ("messages_repeated_total", "Of those, seen before.", |tally| get(&tally.repeats)),
            ("points_total", "Data points, spans and values taken.", |tally| get(&tally.points)),
            ("samples_total", "Samples counted.", |tally| get(&tally.samples)),
        ];
        for (name, help, read) in families {
            head(&mut out, name, help, "counter");
            for listener in listeners {
                let (label, value) = (listener.label(), read(self.of(*listener)));
                line(&mut out, &format!("{name}{{listener=\"{label}\"}} {value}"));
            }
        }
        head(&mut out, "refused_total", "Points, values and messages refused.", "counter");
        for listener in listeners {
            for (reason, count) in self.of(*listener).refused() {
                let labels = format!("listener=\"{}\",reason=\"{reason}\"", listener.label());
                line(&mut out, &format!("refused_total{{{labels}}} {count}"));
            }
        }
        out
    }
}

/// The head of a family of metrics.
pub fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let name = format!("lens_agent_ingest_{name}");
    // Writing to a string cannot fail.
    write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
}

/// A sample of a family, the rest of its name first.
pub fn line(out: &mut String, rest: &str) {
    writeln!(out, "lens_agent_ingest_{rest}").ok();
}
