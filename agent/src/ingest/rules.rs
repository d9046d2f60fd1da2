//! What a listener takes and which series it belongs to: names and tags in, a series key out.
//!
//! A metric is ours when its name says so (`lens_stage_a`, `lens_search`, dots or underscores), when
//! the listener's `stages` or `units` name it, or when a point carries one of our tags itself: a
//! process sends many histograms, and one taken by mistake is worse than one left out. Attributes of
//! the resource fill in what the point leaves open; they make nothing ours.
//! Precedence: point, resource, name, listener. No I/O.

use std::collections::BTreeMap;

use lens_model::{Arm, SeriesKey, Slice, Stage};

use super::refusal::Refusal;
use super::unit::Unit;

/// What becomes of histograms with explicit bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explicit {
    /// Counted at the middle of their buckets, and the series marked as of low resolution.
    #[default]
    Convert,
    /// Refused, with the setting that makes them exponential.
    Refuse,
}

/// What becomes of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spans {
    /// Each counts; one that says its sampling threshold counts for those left out.
    #[default]
    All,
    /// Only those that say their sampling threshold.
    Weighted,
    /// None.
    Refuse,
}

/// What one listener takes, and what it takes a point for that does not say.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Parts of the slice, where a point leaves them open.
    pub repo_type: Option<String>,
    /// See `repo_type`.
    pub language: Option<String>,
    /// See `repo_type`.
    pub size: Option<String>,
    /// The stage of what is ours and does not say.
    pub stage: Option<Stage>,
    /// The arm of what does not say.
    pub arm: Arm,
    /// Stages by name of metric.
    pub stages: BTreeMap<String, Stage>,
    /// Units by name of metric; they win over the unit a metric says.
    pub units: BTreeMap<String, Unit>,
    /// Histograms with explicit bounds.
    pub explicit: Explicit,
    /// Spans.
    pub spans: Spans,
}

/// The tags that say which series a point belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags<'a> {
    repo_type: Option<&'a str>,
    language: Option<&'a str>,
    size: Option<&'a str>,
    stage: Option<&'a str>,
    arm: Option<&'a str>,
    /// Whether the point itself carries one of them.
    own: bool,
}

impl<'a> Tags<'a> {
    /// Takes a tag of the resource, if it is one of ours.
    pub fn resource(&mut self, key: &str, value: &'a str) {
        self.set(key, value);
    }

    /// Takes a tag of the point, if it is one of ours.
    pub fn point(&mut self, key: &str, value: &'a str) {
        self.own |= self.set(key, value);
    }

    fn set(&mut self, key: &str, value: &'a str) -> bool {
        let known = [
            ("lens_repo_type", &mut self.repo_type),
            ("lens_language", &mut self.language),
            ("lens_size", &mut self.size),
            ("lens_stage", &mut self.stage),
            ("lens_arm", &mut self.arm),
        ];
        let found = known.into_iter().find(|(name, _)| alike(key, name));
        found.map(|(_, place)| *place = Some(value)).is_some()
    }
}

/// Whether two names are the same, dots being underscores.
fn alike(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(a, b)| a == b || (a == b'.' && b == b'_'))
}

/// The stage that a name of ours says.
pub fn named_stage(name: &str) -> Option<Stage> {
    let names = [
        ("lens_stage_a", Stage::A),
        ("lens_stage_b", Stage::B),
        ("lens_stage_c", Stage::C),
        ("lens_search", Stage::E2e),
    ];
    names.into_iter().find(|(known, _)| alike(name, known)).map(|(_, stage)| stage)
}

impl Rules {
    /// The series of a point of the metric `name`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn series(&self, name: &str, tags: &Tags<'_>) -> Result<SeriesKey, Refusal> {
        let named = self.stages.get(name).copied().or_else(|| named_stage(name));
        if !tags.own && named.is_none() && !self.units.contains_key(name) {
            return Err(Refusal::NotOurs);
        }
        let stage = match tags.stage {
            Some(text) => text.parse().map_err(|_| Refusal::Stage)?,
            None => named.or(self.stage).ok_or(Refusal::Stage)?,
        };
        Ok(SeriesKey { slice: self.slice(tags)?, stage, arm: self.arm(tags)? })
    }

    /// The slice that tags and defaults come to.
    ///
    /// # Errors
    /// Why there is none.
    pub fn slice(&self, tags: &Tags<'_>) -> Result<Slice, Refusal> {
        let part = |tag: Option<&str>, default: &Option<String>| {
            tag.map(str::to_owned).or_else(|| default.clone()).ok_or(Refusal::SliceMissing)
        };
        let (repo_type, language, size) = (
            part(tags.repo_type, &self.repo_type)?,
            part(tags.language, &self.language)?,
            part(tags.size, &self.size)?,
        );
        Slice::new(&repo_type, &language, &size).map_err(|_| Refusal::SliceName)
    }

    fn arm(&self, tags: &Tags<'_>) -> Result<Arm, Refusal> {
        tags.arm.map_or(Ok(self.arm), |text| text.parse().map_err(|_| Refusal::Arm))
    }

    /// The unit of a metric that says `said` itself.
    ///
    /// # Errors
    /// [`Refusal::Unit`] when neither the listener nor the metric says one that is taken.
    pub fn unit(&self, name: &str, said: &str) -> Result<Unit, Refusal> {
        match self.units.get(name) {
            Some(unit) => Ok(*unit),
            None => said.parse().map_err(|_| Refusal::Unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            repo_type: Some("backend".into()),
            language: Some("rust".into()),
            size: Some("small".into()),
            ..Rules::default()
        }
    }

    fn tags<'a>(pairs: &[(&str, &'a str)]) -> Tags<'a> {
        let mut tags = Tags::default();
        pairs.iter().for_each(|(key, value)| tags.point(key, value));
        tags
    }

    #[test]
    fn a_metric_nobody_named_is_not_ours_whatever_the_defaults() {
        let rules = Rules { stage: Some(Stage::A), ..rules() };
        let mut from_resource = Tags::default();
        from_resource.resource("lens.language", "go");
        for tags in [Tags::default(), from_resource] {
            assert_eq!(rules.series("http.server.duration", &tags), Err(Refusal::NotOurs));
        }
        let key = rules.series("http.server.duration", &tags(&[("lens.arm", "canary")])).unwrap();
        assert_eq!((key.stage, key.arm), (Stage::A, Arm::Canary));
    }

    #[test]
    fn dots_and_underscores_say_the_same_and_the_point_wins_over_the_resource() {
        for (name, stage) in [("lens_stage_b", Stage::B), ("lens.search", Stage::E2e)] {
            assert_eq!(rules().series(name, &Tags::default()).unwrap().stage, stage);
        }
        let mut both = Tags::default();
        both.resource("lens.language", "go");
        both.point("lens_language", "C++");
        let key = rules().series("lens.stage.a", &both).unwrap();
        assert_eq!(key.slice.to_string(), "backend/c++/small");
    }

    #[test]
    fn a_listeners_table_names_metrics_of_any_name() {
        let mut rules = rules();
        rules.stages.insert("search.rerank".into(), Stage::C);
        assert_eq!(rules.series("search.rerank", &Tags::default()).unwrap().stage, Stage::C);
        rules.units.insert("search.time".into(), Unit::Seconds);
        assert_eq!(rules.series("search.time", &Tags::default()), Err(Refusal::Stage));
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_apart() {
        let bare = Rules::default();
        assert_eq!(bare.series("lens_search", &Tags::default()), Err(Refusal::SliceMissing));
        for (pair, why) in [
            (("lens.language", "a/b"), Refusal::SliceName),
            (("lens.stage", "stage_d"), Refusal::Stage),
            (("lens.arm", "blue"), Refusal::Arm),
        ] {
            assert_eq!(rules().series("lens_search", &tags(&[pair])), Err(why));
        }
    }

    #[test]
    fn a_configured_unit_wins_over_the_one_said() {
        let mut rules = rules();
        assert_eq!(rules.unit("t", "ms"), Ok(Unit::Millis));
        assert_eq!(rules.unit("t", ""), Err(Refusal::Unit));
        rules.units.insert("t".into(), Unit::Seconds);
        assert_eq!(rules.unit("t", "ms"), Ok(Unit::Seconds));
    }
}
