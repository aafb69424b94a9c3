//! How often: requests of each tenant in a second, and failed credentials of each address in a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use selvedge_kernel::time::Millis;

/// So many names are counted in one window; who comes behind them is not, and is not refused.
const COUNTED: usize = 100_000;

/// What has been asked in the windows that are now.
#[derive(Debug, Default)]
pub struct Rates {
    tenants: Mutex<Window>,
    reports: Mutex<Window>,
    addresses: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    number: u64,
    counts: HashMap<String, u64>,
}

impl Window {
    /// Counts one more; how many there were in this window, this one included.
    fn count(&mut self, who: &str, number: u64) -> u64 {
        // One that comes late counts in the window that is now.
        if self.number < number {
            *self = Window { number, counts: HashMap::new() };
        }
        if let Some(count) = self.counts.get_mut(who) {
            *count += 1;
            return *count;
        }
        if self.counts.len() < COUNTED {
            self.counts.insert(who.to_owned(), 1);
        }
        1
    }
}

impl Rates {
    /// Counts a request of a tenant; how many it has made in this second.
    pub(crate) fn asked(&self, tenant: &str, now: Millis) -> u64 {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).count(tenant, now.0 / 1_000)
    }

    /// Counts a report of a worker of a tenant; how many there were in this second.
    pub(crate) fn reported(&self, tenant: &str, now: Millis) -> u64 {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).count(tenant, now.0 / 1_000)
    }

    /// Counts a credential that opens nothing; how many came from this address in this minute.
    pub(crate) fn failed(&self, address: &str, now: Millis) -> u64 {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).count(address, now.0 / 60_000)
    }
}
