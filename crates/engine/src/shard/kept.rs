//! The bytes that tenants keep in this shard: counted in the transition that changes them, and once for a store that was
//! written before they were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ActorId, Key};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::invocation::OutputChunk;
use selvedge_kernel::record::kept::{self, Leaves, Place, Recount};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use super::activate::Activation;
use super::tenants::{Sum, Tenants};
use super::{Shard, VerbError};

/// Rows that a recount looks at at once: each may have 64 KiB.
const PAGE: usize = 64;
/// Places that one transition of a recount writes.
const PLACES: usize = 50;

/// What tenants keep in one shard.
#[derive(Default)]
pub(super) struct Kept {
    /// By place; none is empty.
    places: BTreeMap<Place, Held>,
    /// By day, so that the next one is at hand.
    days: BTreeMap<Day, Vec<String>>,
    /// Whether the shard has a row that says that it counts.
    marked: bool,
}

/// What stands in a place, and the sum of its tenant.
struct Held {
    bytes: u64,
    sum: Arc<Sum>,
}

impl Tenants {
    /// When the next bytes leave by themselves.
    pub(super) fn next_day(&self) -> Option<Millis> {
        self.kept.days.first_key_value().map(|(day, _)| day.start())
    }
}

impl Shard {
    /// Reads what its last owner counted, or counts it.
    pub(super) async fn load_kept(&mut self) -> Result<(), VerbError> {
        let today = self.head.time.day();
        let rows = self.scan_all(&key::all(Kind::Kept)).await?;
        self.tenants.kept.marked = rows.iter().any(|(row, _)| *row == key::kept("", None));
        if !self.tenants.kept.marked && self.get(key::shard_head()).await?.is_some() {
            return self.recount().await;
        }
        for (row, value) in rows {
            let (Some(tenant), until) = (key::tenant(&row), key::kept_until(&row)) else { continue };
            // What leaves today may still stand there: it is nobody's any more.
            if !tenant.is_empty() && until.is_none_or(|day| day > today) {
                self.hold((tenant.to_owned(), until), wire::decode("kept bytes", &value)?);
            }
        }
        Ok(())
    }

    /// Counts every row, once: the shard was written by a program that did not, or by an import.
    async fn recount(&mut self) -> Result<(), VerbError> {
        let mut recount = Recount::default();
        let mut range = under(&[]);
        loop {
            let rows = self.scan(range.clone(), PAGE).await?;
            for (row, value) in &rows {
                // One that does not decode counts nothing, and is no reason not to open: whoever needs it says so.
                let _ = recount.row(row, value, &|leaves| self.leaves(leaves));
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => range.start = Key::from([&last[..], &[0]].concat()),
                _ => break,
            }
        }
        let today = self.head.time.day();
        let found: Vec<(Place, u64)> = recount.end().into_iter().filter(|((_, until), _)| until.is_none_or(|day| day > today)).collect();
        // The row that says so comes with the last of them: until then it is counted again.
        for some in found.chunks(PLACES) {
            let mut writes = Writes::default();
            for (place, bytes) in some {
                self.hold(place.clone(), *bytes);
                put(&mut writes, place, *bytes);
            }
            self.tenants.kept.marked = true;
            self.write(writes, Vec::new());
            self.tenants.kept.marked = false;
        }
        Ok(())
    }

    /// The day on which something leaves.
    pub(super) fn leaves(&self, what: Leaves<'_>) -> Day {
        match what {
            Leaves::Invocation(record) => {
                let ended = record.end.as_ref().map_or(self.head.time, |end| end.at);
                Day::expiry(ended, self.keep_of(record).finished)
            }
            Leaves::Letter(letter) => Day::expiry(letter.at, self.wiring.settings.keep.dead_letters),
        }
    }

    fn hold(&mut self, place: Place, bytes: u64) {
        let kept = &mut self.tenants.kept;
        match kept.places.get_mut(&place) {
            Some(held) => {
                held.sum.keep(held.bytes, bytes);
                held.bytes = bytes;
                if bytes == 0 {
                    kept.places.remove(&place);
                }
            }
            None if bytes > 0 => {
                let sum = self.wiring.sums.of(&place.0);
                sum.keep(0, bytes);
                if let (tenant, Some(day)) = &place {
                    kept.days.entry(*day).or_default().push(tenant.clone());
                }
                kept.places.insert(place, Held { bytes, sum });
            }
            None => {}
        }
    }

    /// Counts what a transition keeps more or less, and writes it with it.
    pub(super) fn count_kept(&mut self, writes: &mut Writes) {
        if !self.tenants.kept.marked {
            self.tenants.kept.marked = true;
            writes.put(key::kept("", None), wire::encode(&()));
        }
        for (place, change) in std::mem::take(&mut writes.kept) {
            if change == 0 || place.1.is_some_and(|day| day <= self.head.time.day()) {
                continue;
            }
            let before = self.tenants.kept.places.get(&place).map_or(0, |held| held.bytes);
            let after = before.saturating_add_signed(change);
            put(writes, &place, after);
            self.hold(place, after);
        }
    }

    /// What has left by itself is nobody's any more.
    pub(super) fn pass_days(&mut self) {
        let today = self.now().day();
        while let Some(entry) = self.tenants.kept.days.first_entry()
            && *entry.key() <= today
        {
            let (day, tenants) = entry.remove_entry();
            for tenant in tenants {
                self.hold((tenant, Some(day)), 0);
            }
        }
    }

    /// Whether a tenant may keep more: asked of new work, and of nothing that follows from what was accepted.
    pub(crate) fn room_to_keep(&self, tenant: &str) -> Result<(), VerbError> {
        let kept = self.wiring.sums.of(tenant).kept.load(Ordering::Relaxed);
        let bound = self.wiring.settings.limits.tenant_bytes;
        if kept < bound {
            return Ok(());
        }
        Err(VerbError::new(
            Consequence::Limit,
            "limit: stored_bytes",
            format!(
                "the tenant `{tenant}` keeps {kept} bytes, the limit is {bound}: what was accepted goes on; remove state that nobody needs, erase what has ended, \
                 wait until retention has passed or shorten `retention.finished`, or raise `limits.tenant_bytes`"
            ),
        ))
    }

    /// The bytes of a state entry as a transition under way leaves it.
    pub(super) async fn state_bytes(&self, writes: &Writes, row: &Key) -> Result<i64, VerbError> {
        if let Some(put) = writes.puts.iter().rev().find(|put| put.key == *row) {
            return Ok(kept::change(put.value.len()));
        }
        if writes.deletes.contains(row) {
            return Ok(0);
        }
        Ok(self.get(row.clone()).await?.map_or(0, |value| kept::change(value.len())))
    }

    /// The bytes of state entries as they stand.
    pub(super) async fn state_bytes_of(&self, rows: impl Iterator<Item = Key>) -> Result<i64, VerbError> {
        let nothing = Writes::default();
        let mut bytes = 0;
        for row in rows {
            bytes += self.state_bytes(&nothing, &row).await?;
        }
        Ok(bytes)
    }

    /// The bytes that leave when an actor's state is cleared: those of the names that it has, and of those that this
    /// transition has set before.
    pub(super) async fn cleared_bytes(&self, writes: &Writes, actor: &ActorId, names: &[String]) -> Result<i64, VerbError> {
        let prefix = key::of_actor(Kind::State, actor);
        let mut rows: std::collections::BTreeSet<Key> = names.iter().map(|name| key::state(actor, name)).collect();
        rows.extend(writes.puts.iter().filter(|put| put.key.starts_with(&prefix)).map(|put| put.key.clone()));
        let mut bytes = 0;
        for row in rows {
            bytes += self.state_bytes(writes, &row).await?;
        }
        Ok(bytes)
    }

    /// The bytes of what an invocation has put out. One that has come back into memory has them counted when they are asked for.
    pub(super) async fn output_bytes(&self, activation: &Activation) -> Result<u64, VerbError> {
        match activation.journal.output {
            Some(known) => Ok(known),
            None if !activation.chunked => Ok(0),
            None => {
                let mut bytes = 0;
                for (_, value) in self.scan_all(&key::of_id(Kind::Output, activation.id().0)).await? {
                    bytes += wire::decode::<OutputChunk>("output chunk", &value)?.data.len() as u64;
                }
                Ok(bytes)
            }
        }
    }
}

fn put(writes: &mut Writes, (tenant, until): &Place, bytes: u64) {
    let row = key::kept(tenant, *until);
    match (bytes, until) {
        (0, _) => writes.delete(row),
        (_, None) => writes.put(row, wire::encode(&bytes)),
        (_, Some(day)) => writes.put_until(row, wire::encode(&bytes), *day),
    }
}
