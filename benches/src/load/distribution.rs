//! Distributions of synthetic latencies, and how people write them.
//!
//! `lognormal:median=5ms,sigma=0.7` · `pareto:scale=2ms,alpha=2.5` ·
//! `bimodal:median=2ms,sigma=0.3,slow=40x,share=0.1` (lognormal, and `share` of it `slow` times
//! as long) · `constant:5ms` · `replay:FILE` (one latency in milliseconds a line, over and over).

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::{Distribution as _, LogNormal, Pareto};
use thiserror::Error;

use crate::arguments::{self, ArgumentError, number_within};
use crate::numbers::{nanos_of, nanos_of_millis, whole};

/// Largest replay file, bytes.
const REPLAY_BYTES_MAX: u64 = 256 << 20;

const EXAMPLE: &str = "lognormal:median=5ms,sigma=0.7, pareto:scale=2ms,alpha=2.5, \
    bimodal:median=2ms,sigma=0.3,slow=40x,share=0.1, constant:5ms or replay:FILE";

/// Why a distribution cannot be sampled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DistributionError {
    /// The text is refused.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The file of latencies cannot be read.
    #[error("cannot read the latencies to replay from {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else than latencies, or none.
    #[error("{} line {line}: {text:?} is not a latency; write one number of milliseconds a line", path.display())]
    NotALatency {
        /// The file.
        path: PathBuf,
        /// The line, from 1; one past the last when there is none.
        line: usize,
        /// What stands there.
        text: String,
    },
}

/// How latencies are distributed.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Lognormal by its median and the standard deviation of its logarithm.
    LogNormal {
        /// Half of the latencies are below.
        median: Duration,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Pareto by its smallest value and its tail index.
    Pareto {
        /// The smallest latency.
        scale: Duration,
        /// The smaller, the heavier the tail.
        alpha: f64,
    },
    /// Lognormal, a share of it slower.
    Bimodal {
        /// Median of the fast part.
        median: Duration,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
        /// How many times as long the slow part takes.
        slow: f64,
        /// Share of the slow part.
        share: f64,
    },
    /// Always the same.
    Constant(Duration),
    /// The latencies of a file, over and over.
    Replay(PathBuf),
}

impl FromStr for Distribution {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem: String| ArgumentError::new("distribution", text, problem, EXAMPLE);
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut fields = Fields::new(text, rest);
        let parsed = match name {
            "lognormal" => Self::LogNormal {
                median: fields.duration("median")?,
                sigma: fields.number("sigma", 0.0, 10.0)?,
            },
            "pareto" => Self::Pareto {
                scale: fields.duration("scale")?,
                alpha: fields.number("alpha", 0.01, 1e3)?,
            },
            "bimodal" => Self::Bimodal {
                median: fields.duration("median")?,
                sigma: fields.number("sigma", 0.0, 10.0)?,
                slow: fields.number("slow", 1.0, 1e6)?,
                share: fields.number("share", 0.0, 1.0)?,
            },
            "constant" => {
                return arguments::duration(rest)
                    .map(Self::Constant)
                    .map_err(|e| refuse(e.problem));
            }
            "replay" if rest.is_empty() => return Err(refuse("the file is missing".into())),
            "replay" => return Ok(Self::Replay(rest.into())),
            _ => return Err(refuse("the name is unknown".into())),
        };
        fields.finish()?;
        Ok(parsed)
    }
}

/// The `key=value,…` part of a distribution, taken apart key by key.
struct Fields<'a> {
    text: &'a str,
    left: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    fn new(text: &'a str, rest: &'a str) -> Self {
        let pairs = rest.split(',').filter(|pair| !pair.trim().is_empty());
        let left = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        Self { text, left }
    }

    fn refuse(&self, problem: String) -> ArgumentError {
        ArgumentError::new("distribution", self.text, problem, EXAMPLE)
    }

    fn take(&mut self, key: &str) -> Result<&'a str, ArgumentError> {
        match self.left.iter().position(|(held, _)| *held == key) {
            Some(at) => Ok(self.left.remove(at).1),
            None => Err(self.refuse(format!("{key}= is missing"))),
        }
    }

    fn duration(&mut self, key: &str) -> Result<Duration, ArgumentError> {
        let value = self.take(key)?;
        match arguments::duration(value) {
            Ok(Duration::ZERO) => Err(self.refuse(format!("{key}: it must be above 0"))),
            Ok(duration) => Ok(duration),
            Err(error) => Err(self.refuse(format!("{key}: {}", error.problem))),
        }
    }

    fn number(&mut self, key: &'static str, low: f64, high: f64) -> Result<f64, ArgumentError> {
        let value = self.take(key)?;
        let value = if key == "slow" { value.trim_end_matches('x') } else { value };
        number_within(key, value, low, high, EXAMPLE)
            .map_err(|e| self.refuse(format!("{key}: {}", e.problem)))
    }

    fn finish(self) -> Result<(), ArgumentError> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.refuse(format!("{key} is unknown"))),
        }
    }
}

/// Draws latencies, nanoseconds, never 0.
#[derive(Clone, Debug)]
pub struct Sampler(Kind);

#[derive(Clone, Debug)]
enum Kind {
    LogNormal(LogNormal<f64>),
    Pareto(Pareto<f64>),
    Bimodal { fast: LogNormal<f64>, slow: f64, share: f64 },
    Constant(u64),
    Replay { values: Arc<[u64]>, next: usize },
}

impl Distribution {
    /// A sampler; reads the file of a replay.
    ///
    /// # Errors
    /// [`DistributionError`] when the parameters have no distribution or the file no latencies.
    pub fn sampler(&self) -> Result<Sampler, DistributionError> {
        let lognormal = |median: Duration, sigma: f64| {
            LogNormal::new((nanos_of(median) as f64).ln(), sigma)
                .map_err(|e| unsuited(e.to_string()))
        };
        Ok(Sampler(match self {
            Self::LogNormal { median, sigma } => Kind::LogNormal(lognormal(*median, *sigma)?),
            Self::Pareto { scale, alpha } => Kind::Pareto(
                Pareto::new(nanos_of(*scale) as f64, *alpha)
                    .map_err(|e| unsuited(e.to_string()))?,
            ),
            Self::Bimodal { median, sigma, slow, share } => {
                Kind::Bimodal { fast: lognormal(*median, *sigma)?, slow: *slow, share: *share }
            }
            Self::Constant(latency) => Kind::Constant(nanos_of(*latency)),
            Self::Replay(path) => Kind::Replay { values: read_latencies(path)?.into(), next: 0 },
        }))
    }
}

fn unsuited(problem: String) -> ArgumentError {
    ArgumentError::new("distribution", "", problem, EXAMPLE)
}

impl Sampler {
    /// The next latency, nanoseconds, at least 1.
    pub fn sample(&mut self, rng: &mut impl Rng) -> u64 {
        let nanos = match &mut self.0 {
            Kind::LogNormal(distribution) => whole(distribution.sample(rng)),
            Kind::Pareto(distribution) => whole(distribution.sample(rng)),
            Kind::Bimodal { fast, slow, share } => {
                let latency = fast.sample(rng);
                whole(if rng.random_bool(*share) { latency * *slow } else { latency })
            }
            Kind::Constant(latency) => *latency,
            Kind::Replay { values, next } => {
                let latency = values.get(*next).copied().unwrap_or(1);
                *next = (*next + 1) % values.len().max(1);
                latency
            }
        };
        nanos.max(1)
    }
}

fn read_latencies(path: &Path) -> Result<Vec<u64>, DistributionError> {
    let unreadable = |source| DistributionError::Unreadable { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > REPLAY_BYTES_MAX {
        let problem = format!("{bytes} bytes are more than {REPLAY_BYTES_MAX}");
        return Err(unreadable(std::io::Error::other(problem)));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let bad = |line, text: &str| DistributionError::NotALatency {
        path: path.into(),
        line,
        text: text.chars().take(80).collect(),
    };
    let mut values = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match line.trim().parse::<f64>() {
            Ok(millis) if millis.is_finite() && millis >= 0.0 => {
                values.push(nanos_of_millis(millis))
            }
            _ => return Err(bad(at + 1, line)),
        }
    }
    if values.is_empty() { Err(bad(text.lines().count() + 1, "")) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantile::nearest_rank;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn drawn(text: &str, count: usize) -> Vec<u64> {
        let mut sampler = text.parse::<Distribution>().unwrap().sampler().unwrap();
        let mut rng = StdRng::seed_from_u64(11);
        (0..count).map(|_| sampler.sample(&mut rng)).collect()
    }

    fn near(sorted: &[u64], q: f64, millis: f64, tolerance: f64) {
        let found = nearest_rank(sorted, q).unwrap() as f64 / 1e6;
        assert!((found / millis - 1.0).abs() < tolerance, "q{q}: {found} ms, not {millis}");
    }

    #[test]
    fn lognormal_has_its_median_and_its_tail() {
        let mut values = drawn("lognormal:median=5ms,sigma=0.7", 200_000);
        values.sort_unstable();
        near(&values, 0.5, 5.0, 0.01);
        // exp(0.7 · 1.6449) and exp(0.7 · 2.3263) times the median.
        near(&values, 0.95, 15.81, 0.02);
        near(&values, 0.99, 25.48, 0.03);
    }

    #[test]
    fn pareto_and_bimodal_have_their_quantiles() {
        let mut pareto = drawn("pareto:scale=2ms,alpha=2.5", 200_000);
        pareto.sort_unstable();
        near(&pareto, 0.5, 2.0 * 2.0_f64.powf(0.4), 0.01);
        near(&pareto, 0.99, 2.0 * 100.0_f64.powf(0.4), 0.03);
        assert!(pareto[0] >= 2_000_000);
        let bimodal = drawn("bimodal:median=2ms,sigma=0.3,slow=40x,share=0.1", 100_000);
        let slow = bimodal.iter().filter(|nanos| **nanos > 16_000_000).count();
        assert!((9_500..10_500).contains(&slow), "{slow}");
    }

    #[test]
    fn constant_and_replay_give_what_they_were_given() {
        assert_eq!(drawn("constant:5ms", 2), [5_000_000; 2]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1.5\n\n2\n").unwrap();
        let replayed = drawn(&format!("replay:{}", file.path().display()), 3);
        assert_eq!(replayed, [1_500_000, 2_000_000, 1_500_000]);
        std::fs::write(file.path(), "1.5\nfast\n").unwrap();
        let error = Distribution::Replay(file.path().into()).sampler().unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("fast"), "{error}");
        std::fs::write(file.path(), "").unwrap();
        assert!(Distribution::Replay(file.path().into()).sampler().is_err());
    }

    #[test]
    fn a_refused_distribution_says_which_part_is_wrong() {
        for (text, part) in [
            ("normal:mean=5ms", "name is unknown"),
            ("lognormal:median=5ms", "sigma= is missing"),
            ("lognormal:median=5,sigma=1", "median: the unit is missing"),
            ("lognormal:median=0ms,sigma=1", "above 0"),
            ("lognormal:median=5ms,sigma=x", "sigma: it is not a number"),
            ("lognormal:median=5ms,sigma=1,mu=2", "mu is unknown"),
            ("pareto:scale=1ms,alpha=0", "alpha: it must lie"),
            ("bimodal:median=2ms,sigma=0.3,slow=40x,share=2", "share: it must lie"),
            ("constant:", "unit is missing"),
            ("replay:", "file is missing"),
        ] {
            let error = text.parse::<Distribution>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("median=5ms"), "{text}: {error}");
        }
    }
}
