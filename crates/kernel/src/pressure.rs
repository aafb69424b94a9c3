//! How full a store is of what it still has to put away, and what that means for new work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// From this share of a bound on, in thousandths, new work is accepted more slowly.
pub const SLOW: u32 = 750;
/// From this share of a bound on, in thousandths, new work is refused; what is left up to the bound is for work that was
/// accepted before.
pub const REFUSE: u32 = 875;
/// Whoever was refused asks again after this long.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long new work is held back just below [`REFUSE`].
const LONGEST: Duration = Duration::from_millis(100);

/// A number that a store sets and that everybody who accepts work reads, without a lock. Clones are the same number.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    thousandths: Arc<AtomicU32>,
}

/// What becomes of new work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is accepted.
    Now,
    /// It is accepted after this long.
    After(Duration),
    /// It is refused: the sender asks again after [`RETRY_AFTER`].
    Refused,
}

impl Pressure {
    /// Says how much of the store's tightest bound is used, in thousandths.
    pub fn set(&self, thousandths: u32) {
        self.thousandths.store(thousandths, Ordering::Release);
    }

    /// How much of the store's tightest bound is used, in thousandths.
    #[must_use]
    pub fn thousandths(&self) -> u32 {
        self.thousandths.load(Ordering::Acquire)
    }

    /// What becomes of work that comes now.
    ///
    /// ```
    /// use selvedge_kernel::pressure::{Admission, Pressure};
    /// let pressure = Pressure::default();
    /// assert_eq!(pressure.admission(), Admission::Now);
    /// pressure.set(900);
    /// assert_eq!(pressure.admission(), Admission::Refused);
    /// ```
    #[must_use]
    pub fn admission(&self) -> Admission {
        match self.thousandths() {
            ..SLOW => Admission::Now,
            used @ SLOW..REFUSE => Admission::After(LONGEST * (used - SLOW + 1) / (REFUSE - SLOW)),
            REFUSE.. => Admission::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_held_back_longer_the_fuller_the_store_is_and_then_refused() {
        let pressure = Pressure::default();
        let mut last = Duration::ZERO;
        for used in SLOW..REFUSE {
            pressure.set(used);
            let Admission::After(delay) = pressure.admission() else { panic!("{used}: {:?}", pressure.admission()) };
            assert!(delay > last && delay <= LONGEST, "{used}: {delay:?}");
            last = delay;
        }
        for (used, admission) in [(0, Admission::Now), (SLOW - 1, Admission::Now), (REFUSE, Admission::Refused), (u32::MAX, Admission::Refused)] {
            pressure.set(used);
            assert_eq!(pressure.admission(), admission, "{used}");
        }
    }
}
