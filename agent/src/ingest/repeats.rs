//! Exports seen lately: one that a client sends again is answered as before and not counted again.
//!
//! Why: OTLP delivers at least once. A client that saw no answer sends the same bytes again, and the
//! times in them, to the nanosecond, tell them from any other export.
//! Promise: of two that come at once, one counts and the other waits for its answer. One that was
//! refused for want of room is not remembered.
//! Bounds: the last [`REPEATS_MAX`], in memory: an agent that starts anew remembers none.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::sink::Busy;

/// Exports remembered: at one a second from each of a hundred processes, the last 40 s.
pub const REPEATS_MAX: usize = 4_096;

type Digest = [u8; 32];

#[derive(Debug)]
struct Seen<T> {
    answers: HashMap<Digest, Arc<Mutex<Option<T>>>>,
    order: VecDeque<Digest>,
}

/// The exports seen lately and what was answered.
#[derive(Debug)]
pub struct Repeats<T>(Mutex<Seen<T>>);

impl<T> Default for Repeats<T> {
    fn default() -> Self {
        Self(Mutex::new(Seen { answers: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<T: Clone> Repeats<T> {
    /// The answer to an export, and whether it was seen before; `count` makes it the first time.
    ///
    /// # Errors
    /// Those of `count`.
    pub fn answer(
        &self,
        export: &[u8],
        count: impl FnOnce() -> Result<T, Busy>,
    ) -> Result<(T, bool), Busy> {
        let place = self.place(*blake3::hash(export).as_bytes());
        // Held while counting: a repeat that comes meanwhile waits for the answer.
        let mut answer = place.lock();
        if let Some(known) = answer.as_ref() {
            return Ok((known.clone(), true));
        }
        let made = count()?;
        *answer = Some(made.clone());
        Ok((made, false))
    }

    fn place(&self, digest: Digest) -> Arc<Mutex<Option<T>>> {
        let mut seen = self.0.lock();
        if let Some(place) = seen.answers.get(&digest) {
            return Arc::clone(place);
        }
        if seen.order.len() >= REPEATS_MAX
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.answers.remove(&oldest);
        }
        let place = Arc::new(Mutex::new(None));
        seen.answers.insert(digest, Arc::clone(&place));
        seen.order.push_back(digest);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_export_is_counted_once_and_answered_the_same() {
        let repeats = Repeats::default();
        assert_eq!(repeats.answer(b"one", || Ok(1)), Ok((1, false)));
        assert_eq!(repeats.answer(b"one", || panic!("counted twice")), Ok((1, true)));
        assert_eq!(repeats.answer(b"two", || Ok(2)), Ok((2, false)));
    }

    #[test]
    fn one_refused_for_want_of_room_is_counted_when_it_comes_again() {
        let repeats = Repeats::default();
        assert_eq!(repeats.answer(b"one", || Err(Busy)), Err(Busy));
        assert_eq!(repeats.answer(b"one", || Ok(1)), Ok((1, false)));
    }

    #[test]
    fn as_many_are_remembered_as_the_limit_says_and_not_one_more() {
        let repeats = Repeats::default();
        for export in 0..REPEATS_MAX {
            assert_eq!(repeats.answer(&export.to_le_bytes(), || Ok(export)), Ok((export, false)));
        }
        assert_eq!(repeats.answer(&0_usize.to_le_bytes(), || Ok(7)), Ok((0, true)));
        assert_eq!(repeats.answer(b"one more", || Ok(8)), Ok((8, false)));
        assert_eq!(repeats.answer(&0_usize.to_le_bytes(), || Ok(7)), Ok((7, false)));
        assert_eq!(repeats.0.lock().answers.len(), REPEATS_MAX);
    }
}
