//! Records that are in memory: those that are to be written, and those that an equal decision may still join.

use std::collections::{HashMap, VecDeque};

use selvedge_kernel::id::DecisionId;
use selvedge_kernel::journal::Hash32;
use selvedge_kernel::limit::DECISIONS_A_MINUTE;
use selvedge_kernel::record::decision::{DecisionRecord, What};
use selvedge_kernel::time::Millis;

/// The records of one tenant: a bounded number, whatever is decided.
#[derive(Default)]
pub(super) struct Noted {
    open: HashMap<Hash32, Open>,
    /// How many of them are of each kind, in the order of [`What::ALL`].
    counts: [usize; What::ALL.len()],
    /// When those that are over were forgotten last.
    forgot: Millis,
    /// Those that have changed since they were written, each once.
    changed: VecDeque<Hash32>,
    /// Those that are over, and to be written for the last time.
    over: VecDeque<(DecisionRecord, bool)>,
    /// Whether the shard knows that there is something to write.
    told: bool,
}

/// Between two looks for what can be forgotten.
const FORGET_MS: u64 = 1_000;

/// The place of a kind in [`What::ALL`].
fn place(what: What) -> usize {
    what as usize
}

struct Open {
    record: DecisionRecord,
    changed: bool,
    /// Whether there is a row of it.
    written: bool,
}

/// What became of a record.
pub(super) struct Took {
    /// The record that it is part of.
    pub id: DecisionId,
    /// Whether the shard does not know yet that there is something to write.
    pub first: bool,
    /// How many decisions are in no record because of it.
    pub unrecorded: u64,
}

impl Noted {
    /// Takes a record in: into an equal one, if there is one that is not over.
    pub(super) fn note(&mut self, record: DecisionRecord) -> Took {
        let equals = record.equals();
        let mut id = record.id;
        if let Some(open) = self.open.get_mut(&equals) {
            if open.record.join(&record) {
                id = open.record.id;
            } else {
                let before = std::mem::replace(&mut open.record, record);
                if open.changed {
                    self.over.push_back((before, !open.written));
                }
                open.written = false;
            }
            if !std::mem::replace(&mut open.changed, true) {
                self.changed.push_back(equals);
            }
        } else {
            let (now, kind) = (record.first, place(record.what));
            // A flood does not look through all of them each time.
            if self.counts[kind] >= DECISIONS_A_MINUTE && now.0.abs_diff(self.forgot.0) >= FORGET_MS {
                self.forget(now);
            }
            if self.counts[kind] >= DECISIONS_A_MINUTE {
                return Took { id, first: false, unrecorded: 1 };
            }
            self.counts[kind] += 1;
            self.open.insert(equals, Open { record, changed: true, written: false });
            self.changed.push_back(equals);
        }
        // Nobody has come to write them for minutes: the oldest go, as they would from their rows.
        let lost = if self.over.len() > What::ALL.len() * DECISIONS_A_MINUTE { self.over.pop_front() } else { None };
        Took { id, first: !std::mem::replace(&mut self.told, true), unrecorded: lost.map_or(0, |(record, _)| record.count) }
    }

    /// Forgets what is written and over.
    fn forget(&mut self, now: Millis) {
        self.forgot = now;
        let counts = &mut self.counts;
        self.open.retain(|_, open| {
            let stays = open.changed || open.record.takes_more(now);
            if !stays {
                counts[place(open.record.what)] -= 1;
            }
            stays
        });
    }

    /// Whether something is to be written.
    pub(super) fn waits(&self) -> bool {
        !(self.changed.is_empty() && self.over.is_empty())
    }

    /// Up to so many that are to be written, each with whether there is no row of it yet.
    pub(super) fn take(&mut self, most: usize, now: Millis) -> Vec<(DecisionRecord, bool)> {
        let mut taken: Vec<(DecisionRecord, bool)> = Vec::new();
        while taken.len() < most
            && let Some(record) = self.over.pop_front()
        {
            taken.push(record);
        }
        while taken.len() < most
            && let Some(equals) = self.changed.pop_front()
        {
            if let Some(open) = self.open.get_mut(&equals) {
                open.changed = false;
                taken.push((open.record.clone(), !std::mem::replace(&mut open.written, true)));
            }
        }
        if !self.waits() {
            self.told = false;
            self.forget(now);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use selvedge_kernel::auth::{Action, Resource, Verdict, decision, local};
    use selvedge_kernel::record::decision::Asked;

    use super::*;

    fn denied(ms: u64, name: &str) -> DecisionRecord {
        let (context, resource) = (local("acme", Millis(0)), Resource::Pipeline { tenant: "acme".to_owned(), name: name.to_owned() });
        let id = decision(&context, Action::Start, &resource, Millis(ms));
        DecisionRecord::first(id, What::Denied, &Asked { context: &context, action: Action::Start, resource: &resource }, &Verdict::deny("no"))
    }

    #[test]
    fn equal_ones_of_a_minute_have_the_id_of_the_first_and_are_written_as_one_row() {
        let mut noted = Noted::default();
        let first = noted.note(denied(1_000, "bill"));
        let second = noted.note(denied(2_000, "bill"));
        assert_eq!((second.id, first.first, second.first), (first.id, true, false));
        let taken = noted.take(10, Millis(2_000));
        assert_eq!((taken.len(), taken[0].0.count, taken[0].1), (1, 2, true));
        let third = noted.note(denied(3_000, "bill"));
        assert_eq!((third.id, third.first), (first.id, true));
        let taken = noted.take(10, Millis(3_000));
        assert_eq!((taken.len(), taken[0].0.count, taken[0].1), (1, 3, false), "the row is there");
        // Past the minute it is another one, and what was not written of the first is not lost.
        noted.note(denied(4_000, "bill"));
        let later = noted.note(denied(70_000, "bill"));
        assert_ne!(later.id, first.id);
        let counts: Vec<(u64, bool)> = noted.take(10, Millis(70_000)).into_iter().map(|(record, fresh)| (record.count, fresh)).collect();
        assert_eq!(counts, [(4, false), (1, true)]);
        assert!(!noted.waits() && noted.take(10, Millis(70_000)).is_empty());
    }

    #[test]
    fn a_flood_of_different_ones_stays_in_bounds_and_each_one_that_is_lost_is_counted() {
        let mut noted = Noted::default();
        let flood = |noted: &mut Noted, ms: u64| (0..5_000).map(|n| noted.note(denied(ms + n % 7, &format!("{ms}-{n}"))).unrecorded).sum::<u64>();
        assert_eq!(flood(&mut noted, 1_000), 4_000);
        assert_eq!(noted.take(usize::MAX, Millis(1_010)).len(), 1_000);
        assert_eq!(flood(&mut noted, 2_000), 5_000, "a minute has no more");
        assert_eq!(flood(&mut noted, 62_000), 4_000, "the next one has");
        assert!(noted.open.len() <= 2 * DECISIONS_A_MINUTE);
        What::ALL.into_iter().enumerate().for_each(|(at, what)| assert_eq!(place(what), at));
        // Nobody comes to write.
        let lost: u64 = (2..8)
            .flat_map(|minute| (0..1_000).map(move |n| (minute, n)))
            .map(|(minute, n)| noted.note(denied(minute * 62_000, &format!("62000-{n}"))).unrecorded)
            .sum();
        assert!(lost > 0 && noted.over.len() <= 4 * DECISIONS_A_MINUTE);
    }
}
