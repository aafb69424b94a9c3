//! Everything that looks random here comes from one number, so that a run can be had again.

/// A small generator: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// A generator for one purpose; the same seed and purpose give the same numbers.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Seed {
        let mut mixed = Seed(seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        mixed.draw();
        mixed
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}
