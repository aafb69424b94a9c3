//! Compares what Selvedge says with what really happened.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Answer, Effect, Final};
use crate::transfer::{ACCOUNTS, OPENING_CENTS, STEPS, Transfer, Witness, key};

/// What an audit found out.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Audit {
    /// Transfers that were tried.
    pub tried: usize,
    /// Transfers that were acknowledged.
    pub acknowledged: usize,
    /// Transfers that had not ended, but wait for something that has a name.
    pub waiting: usize,
    /// Steps whose result was in the journal.
    pub finished: usize,
    /// Steps that were running at a kill and ran again under the same key (P2).
    pub repeated: usize,
    /// Messages that the transfers sent, each of which was handled.
    pub messages: u64,
    /// Invocations that were blocked and looked at again in the last run.
    pub looked_again: u64,
    /// Journal entries whose chain was walked.
    pub verified: u64,
    /// What must not be.
    pub broken: Vec<String>,
}

/// Audits the bank. `kills` bounds how often any step can have run; `order` says what a transfer was to do.
#[must_use]
pub fn bank(effects: &[Effect], answers: &[Answer], last: &Final, kills: usize, order: &dyn Fn(u64) -> Transfer) -> Audit {
    let mut audit = Audit::default();
    steps(effects, kills, &mut audit);
    starts(answers, last, &mut audit);
    money(last, &mut audit);
    once(last, order, &mut audit);
    (audit.messages, audit.looked_again) = (last.messages, last.looked_again);
    audit.broken.extend(last.faults.iter().map(|fault| format!("verify: {fault}")));
    audit.verified = last.verified;
    each_ended_transfer_ran_whole(effects, last, &mut audit);
    audit
}

/// P2: what finished is not run again, and what is run again has its old key.
fn steps(effects: &[Effect], kills: usize, audit: &mut Audit) {
    let mut finished = BTreeSet::new();
    let mut attempts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keys: BTreeMap<(u64, &str), &str> = BTreeMap::new();
    let mut owners: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Finished { key } => {
                if !attempts.contains_key(key.as_str()) {
                    audit.broken.push(format!("step {key} has a result but never ran"));
                }
                finished.insert(key.as_str());
            }
            Effect::Attempt { key, attempt, step, transfer } => {
                let place = (*transfer, step.as_str());
                if finished.contains(key.as_str()) {
                    audit.broken.push(format!("step {step} of transfer {transfer} ran again (attempt {attempt}, key {key}) after it had finished"));
                }
                if *keys.entry(place).or_insert(key) != key.as_str() {
                    audit.broken.push(format!("step {step} of transfer {transfer} ran under a second key, {key}"));
                }
                if *owners.entry(key).or_insert(place) != place {
                    audit.broken.push(format!("key {key} was given to two steps, the second is {step} of transfer {transfer}"));
                }
                *attempts.entry(key).or_default() += 1;
            }
        }
    }
    for (key, ran) in &attempts {
        if *ran > kills + 1 {
            audit.broken.push(format!("step {key} ran {ran} times in {} lives of the process", kills + 1));
        }
    }
    audit.finished = finished.len();
    audit.repeated = attempts.values().filter(|ran| **ran > 1).count();
}

/// P1 and P5: what was acknowledged has ended or says what it waits for, and always with one result.
fn starts(answers: &[Answer], last: &Final, audit: &mut Audit) {
    let tried: BTreeSet<u64> = answers.iter().filter_map(|answer| if let Answer::Try { transfer } = answer { Some(*transfer) } else { None }).collect();
    let by_id: BTreeMap<u64, &serde_json::Value> = last.results.iter().map(|(transfer, result)| (*transfer, result)).collect();
    let repeated: BTreeMap<u64, &serde_json::Value> = last.repeated.iter().map(|(transfer, result)| (*transfer, result)).collect();
    let waiting: BTreeMap<u64, &str> = last.waiting.iter().map(|(transfer, why)| (*transfer, why.as_str())).collect();
    let mut acknowledged: BTreeMap<u64, &str> = BTreeMap::new();
    for answer in answers {
        match answer {
            Answer::Try { .. } => {}
            Answer::Acknowledged { transfer, invocation } => {
                if *acknowledged.entry(*transfer).or_insert(invocation) != invocation.as_str() {
                    audit.broken.push(format!("transfer {transfer} was acknowledged as two invocations, the second is {invocation}"));
                }
            }
            Answer::Result { transfer, result } => {
                if let Some(now) = repeated.get(transfer)
                    && *now != result
                {
                    audit.broken.push(format!("transfer {transfer} gave {result} first and {now} later"));
                }
            }
        }
    }
    for transfer in acknowledged.keys() {
        match (by_id.get(transfer), repeated.get(transfer), waiting.get(transfer)) {
            (Some(first), Some(again), _) if first != again => {
                audit.broken.push(format!("transfer {transfer} gave {first}, and {again} when it was started again"))
            }
            (None, _, None) => {
                let said = last.lost.iter().find(|(lost, _)| lost == transfer).map_or("nothing", |(_, said)| said);
                audit.broken.push(format!("transfer {transfer} was acknowledged and is lost: {said}"));
            }
            _ => {}
        }
    }
    for (transfer, why) in &waiting {
        if why.trim().is_empty() {
            audit.broken.push(format!("transfer {transfer} has not ended and nobody can say why"));
        }
    }
    for transfer in tried.iter().filter(|transfer| !repeated.contains_key(transfer) && !waiting.contains_key(transfer)) {
        audit.broken.push(format!("transfer {transfer} was started again in the last run and neither ended nor waits"));
    }
    audit.tried = tried.len();
    audit.acknowledged = acknowledged.len();
    audit.waiting = waiting.len();
}

/// P4: no cent is made or lost.
fn money(last: &Final, audit: &mut Audit) {
    let expected = ACCOUNTS as i64 * OPENING_CENTS;
    let sum: i64 = last.books.iter().map(|book| book.cents).sum();
    if !last.waiting.is_empty() {
        return;
    }
    if sum != expected {
        audit.broken.push(format!("the accounts hold {sum} cents, they started with {expected}"));
    }
    if let Some(overdrawn) = last.books.iter().position(|book| book.cents < 0) {
        audit.broken.push(format!("account {overdrawn} is overdrawn: {}", last.books[overdrawn].cents));
    }
}

/// Each transfer that moved money did it once: in the books of both accounts, at its tally and at its notary. No other did.
fn once(last: &Final, order: &dyn Fn(u64) -> Transfer, audit: &mut Audit) {
    for (transfer, said) in last.lost.iter().filter(|(_, said)| said.starts_with("message")) {
        audit.broken.push(format!("transfer {transfer} sent what was not handled: {said}"));
    }
    if !last.waiting.is_empty() {
        return;
    }
    let mut books = vec![BTreeMap::new(); last.books.len()];
    let (mut counted, mut noted) = (BTreeMap::new(), BTreeMap::new());
    for (number, _) in last.repeated.iter().filter(|(_, result)| result["moved"] == true) {
        let Transfer { from, to, cents, witness, .. } = order(*number);
        books[from as usize].insert(format!("out-{number}"), cents);
        books[to as usize].insert(format!("in-{number}"), cents);
        counted.insert(key(*number), 1);
        if witness != Witness::Nobody {
            noted.insert(key(*number), 1);
        }
    }
    for (account, (expected, book)) in books.iter().zip(&last.books).enumerate() {
        differ(&format!("account {account}"), expected, &book.entries, audit);
    }
    differ("the tallies", &counted, &last.counted, audit);
    differ("the notaries", &noted, &last.noted, audit);
}

fn differ<T: PartialEq + std::fmt::Debug>(whose: &str, expected: &BTreeMap<String, T>, found: &BTreeMap<String, T>, audit: &mut Audit) {
    for name in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let (due, has) = (expected.get(name), found.get(name));
        if due != has {
            audit.broken.push(format!("{name} at {whose}: {has:?} and not {due:?}"));
        }
    }
}

/// A transfer with a result has the effect of each of its steps in the ledger.
fn each_ended_transfer_ran_whole(effects: &[Effect], last: &Final, audit: &mut Audit) {
    let ran: BTreeSet<(u64, &str)> =
        effects.iter().filter_map(|effect| if let Effect::Attempt { step, transfer, .. } = effect { Some((*transfer, step.as_str())) } else { None }).collect();
    for (transfer, result) in &last.repeated {
        for step in STEPS {
            let due = step != "credit" || result["moved"] == true;
            if due && !ran.contains(&(*transfer, step)) {
                audit.broken.push(format!("transfer {transfer} ended without its step {step}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::bank::Book;
    use crate::transfer::Way;

    /// Five cents from account 0 to account 1, before a notary.
    fn order(number: u64) -> Transfer {
        Transfer { number, from: 0, to: 1, cents: 5, rest_ms: 0, way: Way::Sent, witness: Witness::Told, delay_ms: 0 }
    }

    fn attempt(transfer: u64, step: &str, attempt: u32) -> Effect {
        Effect::Attempt { key: format!("{transfer}/{step}"), attempt, step: step.to_owned(), transfer }
    }

    fn finished(transfer: u64, step: &str) -> Effect {
        Effect::Finished { key: format!("{transfer}/{step}") }
    }

    fn world() -> (Vec<Effect>, Vec<Answer>, Final) {
        let effects = STEPS.iter().flat_map(|step| [attempt(1, step, 1), finished(1, step)]).collect();
        let answers = vec![
            Answer::Try { transfer: 1 },
            Answer::Acknowledged { transfer: 1, invocation: "inv_1".to_owned() },
            Answer::Result { transfer: 1, result: json!({"moved": true}) },
        ];
        let mut books = vec![Book { cents: OPENING_CENTS, ..Book::default() }; ACCOUNTS as usize];
        books[0] = Book { cents: OPENING_CENTS - 5, entries: BTreeMap::from([("out-1".to_owned(), 5)]) };
        books[1] = Book { cents: OPENING_CENTS + 5, entries: BTreeMap::from([("in-1".to_owned(), 5)]) };
        let (counted, ended) = (BTreeMap::from([(key(1), 1)]), vec![(1, json!({"moved": true}))]);
        (effects, answers, Final { books, noted: counted.clone(), counted, results: ended.clone(), repeated: ended, ..Final::default() })
    }

    fn broken(change: impl FnOnce(&mut Vec<Effect>, &mut Vec<Answer>, &mut Final)) -> Vec<String> {
        let (mut effects, mut answers, mut last) = world();
        change(&mut effects, &mut answers, &mut last);
        bank(&effects, &answers, &last, 2, &order).broken
    }

    #[test]
    fn a_sound_bank_passes_and_a_step_cut_by_a_kill_is_counted() {
        assert_eq!(broken(|_, _, _| {}), Vec::<String>::new());
        let (mut effects, answers, last) = world();
        effects.insert(0, attempt(1, STEPS[0], 1));
        let audit = bank(&effects, &answers, &last, 2, &order);
        assert_eq!((audit.broken.len(), audit.repeated, audit.finished), (0, 1, 3));
    }

    #[test]
    fn a_finished_step_that_runs_again_is_found() {
        assert!(broken(|effects, _, _| effects.push(attempt(1, STEPS[0], 2)))[0].contains("after it had finished"));
    }

    #[test]
    fn a_second_key_and_a_shared_key_are_found() {
        let second = Effect::Attempt { key: "new".to_owned(), attempt: 2, step: STEPS[0].to_owned(), transfer: 1 };
        assert!(broken(|effects, _, _| effects.insert(0, second))[0].contains("second key"));
        let shared = Effect::Attempt { key: format!("1/{}", STEPS[0]), attempt: 1, step: "other".to_owned(), transfer: 2 };
        assert!(broken(|effects, _, _| effects.insert(1, shared))[0].contains("two steps"));
    }

    #[test]
    fn a_step_that_ran_more_often_than_the_process_lived_is_found() {
        let more = |effects: &mut Vec<Effect>| (0..3).for_each(|_| effects.insert(0, attempt(1, STEPS[0], 1)));
        assert!(broken(|effects, _, _| more(effects))[0].contains("4 times in 3 lives"));
    }

    #[test]
    fn a_lost_start_a_changed_result_and_a_silent_wait_are_found() {
        assert!(broken(|_, _, last| last.results.clear())[0].contains("is lost"));
        assert!(broken(|_, _, last| last.repeated.clear()).iter().any(|line| line.contains("neither ended nor waits")));
        assert!(broken(|_, answers, _| answers.push(Answer::Result { transfer: 1, result: json!(2) }))[0].contains("first and"));
        assert!(broken(|_, _, last| last.results[0].1 = json!(3)).iter().any(|line| line.contains("when it was started again")));
        assert!(broken(|_, _, last| last.waiting.push((1, String::new())))[0].contains("nobody can say why"));
        let second = Answer::Acknowledged { transfer: 1, invocation: "inv_2".to_owned() };
        assert!(broken(|_, answers, _| answers.push(second))[0].contains("two invocations"));
    }

    #[test]
    fn a_missing_cent_an_overdraft_and_a_fault_of_a_chain_are_found() {
        assert!(broken(|_, _, last| last.books[0].cents -= 1)[0].contains("started with"));
        assert_eq!(broken(|_, _, last| last.faults.push("entry 3".to_owned())), ["verify: entry 3"]);
        let overdraw = |last: &mut Final| {
            last.books[0].cents -= OPENING_CENTS;
            last.books[1].cents += OPENING_CENTS;
        };
        assert!(broken(|_, _, last| overdraw(last))[0].contains("overdrawn"));
    }

    #[test]
    fn what_is_handled_twice_not_at_all_or_for_nobody_is_found() {
        let twice = |last: &mut Final| last.books[1].entries.extend([("in-1".to_owned(), 10)]);
        assert_eq!(broken(|_, _, last| twice(last)), ["in-1 at account 1: Some(10) and not Some(5)"]);
        assert_eq!(broken(|_, _, last| last.books[0].entries.clear()), ["out-1 at account 0: None and not Some(5)"]);
        assert_eq!(broken(|_, _, last| last.counted.extend([(key(1), 2)])), ["t-1 at the tallies: Some(2) and not Some(1)"]);
        assert_eq!(broken(|_, _, last| last.noted.clear()), ["t-1 at the notaries: None and not Some(1)"]);
        assert_eq!(broken(|_, _, last| last.noted.extend([(key(2), 1)])), ["t-2 at the notaries: Some(1) and not None"]);
        assert!(broken(|_, _, last| last.lost.push((1, "message inv_2: not known".to_owned())))[0].contains("was not handled"));
    }

    #[test]
    fn a_transfer_without_one_of_its_effects_is_found() {
        assert!(
            broken(|effects, _, _| effects.retain(|effect| !matches!(effect, Effect::Attempt { step, .. } if step == "receipt")))
                .iter()
                .any(|line| line.contains("without its step receipt"))
        );
    }
}
