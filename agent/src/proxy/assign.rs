//! Until the control plane's own is merged.
use lens_model::Arm;

#[derive(Clone, Copy, Debug, Default)]
pub struct Assignment {
    pub percent: u8,
    pub killed: bool,
}

impl Assignment {
    pub fn arm(&self, id: impl AsRef<[u8]>) -> Arm {
        let place = crc(id.as_ref()) % 100;
        if !self.killed && place < u32::from(self.percent) { Arm::Canary } else { Arm::Baseline }
    }
}

fn crc(id: &[u8]) -> u32 {
    id.iter().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}
