//! What waits to be sent, oldest first, within a bound.

use std::collections::VecDeque;

use thiserror::Error;

use super::message::Batch;

/// Requests held at most, whatever their size.
const REQUESTS_MAX: usize = 65_536;

/// A collection that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes more do not fit beside the {held} that wait")]
pub struct Full {
    /// Bytes it has.
    pub bytes: usize,
    /// Bytes that wait.
    pub held: usize,
}

/// Requests in the order they were collected.
#[derive(Debug)]
pub struct Queue {
    held: VecDeque<Batch>,
    bytes: usize,
    bytes_max: usize,
}

impl Queue {
    /// An empty one that holds up to `bytes_max`.
    pub const fn new(bytes_max: usize) -> Self {
        Self { held: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Takes a collection whole, or not at all: half of one would be read as series that ended.
    ///
    /// # Errors
    /// [`Full`].
    pub fn offer(&mut self, batches: Vec<Batch>) -> Result<(), Full> {
        let bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();
        let fits = self.bytes + bytes <= self.bytes_max;
        if !fits || self.held.len() + batches.len() > REQUESTS_MAX {
            return Err(Full { bytes, held: self.bytes });
        }
        self.bytes += bytes;
        self.held.extend(batches);
        Ok(())
    }

    /// The oldest.
    pub fn front(&self) -> Option<&Batch> {
        self.held.front()
    }

    /// Gives up the oldest, which was sent or refused.
    pub fn pop(&mut self) -> Option<Batch> {
        let batch = self.held.pop_front()?;
        self.bytes -= batch.body.len();
        Some(batch)
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that wait.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_model::UnixNanos;

    fn batch(bytes: usize, collected: u64) -> Batch {
        Batch { body: vec![0; bytes], samples: 1, collected: UnixNanos(collected) }
    }

    #[test]
    fn a_collection_that_just_fits_is_taken_and_one_byte_more_is_not_in_any_part() {
        let mut queue = Queue::new(100);
        queue.offer(vec![batch(40, 1), batch(20, 1)]).unwrap();
        let refused = queue.offer(vec![batch(20, 2), batch(21, 2)]);
        assert_eq!(refused, Err(Full { bytes: 41, held: 60 }));
        assert_eq!((queue.len(), queue.bytes()), (2, 60));
        queue.offer(vec![batch(20, 2), batch(20, 2)]).unwrap();
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|b| b.collected.0).collect();
        assert_eq!((order, queue.bytes()), (vec![1, 1, 2, 2], 0));
    }

    #[test]
    fn as_many_requests_as_may_wait_do_and_not_one_more() {
        let mut queue = Queue::new(usize::MAX);
        queue.offer(vec![batch(0, 0); REQUESTS_MAX]).unwrap();
        assert!(queue.offer(vec![batch(0, 0)]).is_err());
        assert!(queue.offer(Vec::new()).is_ok() && !queue.is_empty());
    }
}
