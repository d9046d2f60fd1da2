//! Chance that follows from the seed: splitmix64, the same everywhere and for ever.

use std::sync::Arc;

use parking_lot::Mutex;

/// One stream of chance. A fork by another label is another stream, whatever either has given.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6c65_6e73_2d77_6f72))
    }

    /// Another stream, of this one's beginning and a label.
    pub fn fork(&self, label: &str) -> Self {
        let mut state = self.0;
        for byte in label.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Self(state)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 to below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A place in something that holds `length` things, which is not 0.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// A number from `least` to `most`, both included.
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True `per_mille` times of a thousand.
    pub const fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.place(of.len())]
    }

    /// Fills a buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A stream that several draw from, in the order in which they come.
#[derive(Clone, Debug)]
pub struct SharedChance(Arc<Mutex<Chance>>);

impl SharedChance {
    /// Shares a stream.
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(chance)))
    }

    /// Draws.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.0.lock())
    }
}

const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_follows_from_its_seed_and_label_alone() {
        let draw = |seed, label| Chance::new(seed).fork(label).next();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        let mut chance = Chance::new(7);
        assert!((0..1_000).all(|_| (3..=5).contains(&chance.between(3, 5))));
    }
}
