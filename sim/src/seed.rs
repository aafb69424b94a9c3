//! Where every decision of a simulation comes from.

use std::sync::{Arc, Mutex, PoisonError};

/// A stream of numbers that follows from a seed; its clones draw from the same stream.
#[derive(Clone)]
pub struct Seed(Arc<Mutex<u64>>);

impl Seed {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Seed {
        Seed(Arc::new(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)))
    }

    /// The next number (SplitMix64).
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Yes, `percent` times out of a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
