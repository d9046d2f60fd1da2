//! The feature flags by name, path and bit: the vocabulary of control plane and flag page.

/// A feature flag. The number is its bit in the flag page and never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Flag {
    /// `stageCOptimizations`
    StageCOptimizations = 0,
    /// `isotonicCalibration`
    IsotonicCalibration = 1,
    /// `confidenceGating`
    ConfidenceGating = 2,
    /// `optimizedHNSW`
    OptimizedHnsw = 3,
    /// `stageA.native_scanner`
    StageANativeScanner = 4,
    /// `stageB.enabled`
    StageBEnabled = 5,
    /// `stageB.lruCaching`
    StageBLruCaching = 6,
    /// `stageB.precompilePatterns`
    StageBPrecompilePatterns = 7,
    /// `stageC.enabled`
    StageCEnabled = 8,
    /// `stageC.confidenceCutoff`
    StageCConfidenceCutoff = 9,
    /// `stageC.isotonicCalibration`
    StageCIsotonicCalibration = 10,
    /// `canary.killSwitchEnabled`
    CanaryKillSwitchEnabled = 11,
    /// `canary.progressiveRollout`
    CanaryProgressiveRollout = 12,
    /// `experimentalReranker`
    ExperimentalReranker = 13,
    /// `advancedCalibration`
    AdvancedCalibration = 14,
    /// `hnswAutoTuning`
    HnswAutoTuning = 15,
    /// `performanceMonitoring`
    PerformanceMonitoring = 16,
    /// `qualityGating`
    QualityGating = 17,
    /// `abTesting.enabled`
    AbTestingEnabled = 18,
}

impl Flag {
    /// Every flag, by bit.
    pub const ALL: [Self; 19] = [
        Self::StageCOptimizations,
        Self::IsotonicCalibration,
        Self::ConfidenceGating,
        Self::OptimizedHnsw,
        Self::StageANativeScanner,
        Self::StageBEnabled,
        Self::StageBLruCaching,
        Self::StageBPrecompilePatterns,
        Self::StageCEnabled,
        Self::StageCConfidenceCutoff,
        Self::StageCIsotonicCalibration,
        Self::CanaryKillSwitchEnabled,
        Self::CanaryProgressiveRollout,
        Self::ExperimentalReranker,
        Self::AdvancedCalibration,
        Self::HnswAutoTuning,
        Self::PerformanceMonitoring,
        Self::QualityGating,
        Self::AbTestingEnabled,
    ];

    /// The flag's path in the control plane's tree.
    pub const fn path(self) -> &'static str {
        match self {
            Self::StageCOptimizations => "stageCOptimizations",
            Self::IsotonicCalibration => "isotonicCalibration",
            Self::ConfidenceGating => "confidenceGating",
            Self::OptimizedHnsw => "optimizedHNSW",
            Self::StageANativeScanner => "stageA.native_scanner",
            Self::StageBEnabled => "stageB.enabled",
            Self::StageBLruCaching => "stageB.lruCaching",
            Self::StageBPrecompilePatterns => "stageB.precompilePatterns",
            Self::StageCEnabled => "stageC.enabled",
            Self::StageCConfidenceCutoff => "stageC.confidenceCutoff",
            Self::StageCIsotonicCalibration => "stageC.isotonicCalibration",
            Self::CanaryKillSwitchEnabled => "canary.killSwitchEnabled",
            Self::CanaryProgressiveRollout => "canary.progressiveRollout",
            Self::ExperimentalReranker => "experimentalReranker",
            Self::AdvancedCalibration => "advancedCalibration",
            Self::HnswAutoTuning => "hnswAutoTuning",
            Self::PerformanceMonitoring => "performanceMonitoring",
            Self::QualityGating => "qualityGating",
            Self::AbTestingEnabled => "abTesting.enabled",
        }
    }

    /// What holds before the control plane has spoken.
    pub const fn default_value(self) -> bool {
        matches!(
            self,
            Self::CanaryKillSwitchEnabled
                | Self::CanaryProgressiveRollout
                | Self::PerformanceMonitoring
                | Self::QualityGating
        )
    }

    /// The flag's bit in the flag word.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_paths_are_distinct() {
        for (bit, flag) in Flag::ALL.iter().enumerate() {
            assert_eq!(flag.bit(), 1 << bit);
            assert!(Flag::ALL.iter().filter(|other| other.path() == flag.path()).count() == 1);
        }
    }
}
