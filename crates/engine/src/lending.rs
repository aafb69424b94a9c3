//! How the limits stand that somebody waits for: their lenders know, and their rows say it.

use selvedge_kernel::id::ActorId;
use selvedge_kernel::lend::{KIND, LenderRow};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::waiting::{Lending, Waiting};
use selvedge_kernel::wire;

use crate::engine::Engine;
use crate::shard::VerbError;

impl Engine {
    /// Adds to each throttle that is waited for what its lender has written last.
    pub(crate) async fn with_lending(&self, tenant: &str, waiting: &mut [Waiting]) -> Result<(), VerbError> {
        for one in waiting {
            let Waiting::Throttle { limit, lending, .. } = one else { continue };
            let limit = ActorId { tenant: tenant.to_owned(), kind: KIND.to_owned(), key: limit.clone() };
            let Some(row) = self.wiring.store.get(self.wiring.shard_of(&limit), key::of_actor(Kind::Limit, &limit)).await? else { continue };
            let row: LenderRow = wire::decode("limit", &row)?;
            // Of another life: nobody has reported since this process began, and what was lent is back.
            if row.life == self.wiring.life {
                let borrowers = row.lent.into_iter().filter(|(_, lent)| lent.out > 0).map(|(shard, lent)| (shard, lent.out)).collect();
                let waiting = row.queue.iter().map(|(_, want)| u64::from(*want)).sum();
                *lending = Some(Lending { throttle: row.throttle, borrowers, waiting });
            }
        }
        Ok(())
    }
}
