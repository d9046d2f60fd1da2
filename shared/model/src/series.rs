//! What a latency belongs to: a slice of the corpus, a stage of the query, an arm of a rollout.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::limits::SLICE_PART_BYTES_MAX;

/// Why a name was refused, saying what it was and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseSeriesError {
    /// A slice part is empty, too long, or holds a byte outside the allowed set.
    #[error(
        "slice {part} {value:?} is not a name: use 1 to {SLICE_PART_BYTES_MAX} of a-z 0-9 . _ + # -, starting with a letter or digit"
    )]
    SlicePart {
        /// `repo_type`, `language` or `size`.
        part: &'static str,
        /// What was given, cut to a printable length.
        value: String,
    },
    /// The key does not have exactly three parts.
    #[error(
        "slice {value:?} needs three parts, repo_type/language/size, such as backend/rust/large"
    )]
    SliceShape {
        /// What was given.
        value: String,
    },
    /// No such stage.
    #[error("stage {value:?} is unknown: use stage_a, stage_b, stage_c or e2e")]
    Stage {
        /// What was given.
        value: String,
    },
    /// No such arm.
    #[error("arm {value:?} is unknown: use baseline or canary")]
    Arm {
        /// What was given.
        value: String,
    },
}

/// One slice of the corpus: repository type × language × size, each a short lower-case name.
///
/// Its text form is `repo_type/language/size`. Upper-case letters are folded on construction, so
/// `Rust` and `rust` never become two slices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    repo_type: Box<str>,
    language: Box<str>,
    size: Box<str>,
}

impl Slice {
    /// A slice from its three parts.
    ///
    /// # Errors
    /// [`ParseSeriesError::SlicePart`] names the part that is empty, longer than
    /// [`SLICE_PART_BYTES_MAX`] or holds another character than `a-z 0-9 . _ + # -`.
    pub fn new(repo_type: &str, language: &str, size: &str) -> Result<Self, ParseSeriesError> {
        Ok(Self {
            repo_type: part("repo_type", repo_type)?,
            language: part("language", language)?,
            size: part("size", size)?,
        })
    }

    /// The kind of repository, such as `backend`.
    pub fn repo_type(&self) -> &str {
        &self.repo_type
    }

    /// The language, such as `rust`.
    pub fn language(&self) -> &str {
        &self.language
    }

    /// The size class, such as `large`.
    pub fn size(&self) -> &str {
        &self.size
    }
}

fn part(name: &'static str, value: &str) -> Result<Box<str>, ParseSeriesError> {
    let good = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || (at > 0 && matches!(byte, b'.' | b'_' | b'+' | b'#' | b'-'))
    };
    if value.is_empty()
        || value.len() > SLICE_PART_BYTES_MAX
        || !value.bytes().enumerate().all(good)
    {
        let value = value.chars().take(80).collect();
        return Err(ParseSeriesError::SlicePart { part: name, value });
    }
    Ok(value.to_ascii_lowercase().into_boxed_str())
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.repo_type, self.language, self.size)
    }
}

impl FromStr for Slice {
    type Err = ParseSeriesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(repo_type), Some(language), Some(size), None) => {
                Self::new(repo_type, language, size)
            }
            _ => Err(ParseSeriesError::SliceShape { value: text.chars().take(200).collect() }),
        }
    }
}

impl Serialize for Slice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Slice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A stage of a query. The number is its wire and segment code and never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Lexical search.
    A = 0,
    /// Symbol search.
    B = 1,
    /// Semantic rerank.
    C = 2,
    /// The whole query, end to end.
    E2e = 3,
}

impl Stage {
    /// Every stage, in the order a query passes them.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::E2e];

    /// The name used in JSON, labels and flags: `stage_a`, `stage_b`, `stage_c`, `e2e`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "stage_a",
            Self::B => "stage_b",
            Self::C => "stage_c",
            Self::E2e => "e2e",
        }
    }

    /// The code used on the wire and in segments.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The stage with this code, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::A),
            1 => Some(Self::B),
            2 => Some(Self::C),
            3 => Some(Self::E2e),
            _ => None,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stage {
    type Err = ParseSeriesError;

    /// Accepts the JSON name and the short letter people type: `stage_a`, `a`, `A`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "stage_a" | "a" => Ok(Self::A),
            "stage_b" | "b" => Ok(Self::B),
            "stage_c" | "c" => Ok(Self::C),
            "e2e" | "total" => Ok(Self::E2e),
            _ => Err(ParseSeriesError::Stage { value: text.chars().take(80).collect() }),
        }
    }
}

/// An arm of a rollout. The number is its wire and segment code and never changes meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Arm {
    /// The version everyone had before.
    #[default]
    Baseline = 0,
    /// The version being rolled out.
    Canary = 1,
}

impl Arm {
    /// Every arm, baseline first.
    pub const ALL: [Self; 2] = [Self::Baseline, Self::Canary];

    /// The name used in JSON, labels and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Canary => "canary",
        }
    }

    /// The code used on the wire and in segments.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The arm with this code, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Baseline),
            1 => Some(Self::Canary),
            _ => None,
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Arm {
    type Err = ParseSeriesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "baseline" | "stable" => Ok(Self::Baseline),
            "canary" => Ok(Self::Canary),
            _ => Err(ParseSeriesError::Arm { value: text.chars().take(80).collect() }),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Stage, Arm);

/// What one histogram counts: a slice, a stage and an arm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The slice of the corpus.
    pub slice: Slice,
    /// The stage of the query.
    pub stage: Stage,
    /// The arm of the rollout.
    pub arm: Arm,
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.slice, self.stage, self.arm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reads_back_from_its_own_text() {
        let slice = Slice::new("Backend", "c++", "large").unwrap();
        assert_eq!(slice.to_string(), "backend/c++/large");
        assert_eq!("backend/c++/large".parse::<Slice>().unwrap(), slice);
    }

    #[test]
    fn a_slice_with_a_slash_a_space_or_nothing_in_a_part_is_refused() {
        for bad in ["", "a b", "a/b", "-x", "é", &"x".repeat(SLICE_PART_BYTES_MAX + 1)] {
            let error = Slice::new("backend", bad, "large").unwrap_err();
            assert!(error.to_string().contains("language"), "{error}");
        }
        assert!(Slice::new("backend", &"x".repeat(SLICE_PART_BYTES_MAX), "large").is_ok());
        assert!("backend/rust".parse::<Slice>().is_err());
        assert!("backend/rust/large/more".parse::<Slice>().is_err());
    }

    #[test]
    fn codes_and_names_of_stages_and_arms_round_trip() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_code(stage.code()), Some(stage));
            assert_eq!(stage.as_str().parse::<Stage>().unwrap(), stage);
        }
        for arm in Arm::ALL {
            assert_eq!(Arm::from_code(arm.code()), Some(arm));
            assert_eq!(arm.as_str().parse::<Arm>().unwrap(), arm);
        }
        assert_eq!(Stage::from_code(4), None);
        assert_eq!(Arm::from_code(2), None);
    }
}
