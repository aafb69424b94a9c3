//! What one step costs in CPU, by part. Threads are measured as they run; what the worker threads do is taken apart by
//! running the very functions alone, over the commits of the same load.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use selvedge_kernel::auth::local;
use selvedge_kernel::id::{ActorId, InvocationId, RawId};
use selvedge_kernel::journal::{Ending, OpKind, SealKey, seal};
use selvedge_kernel::ports::Commit;
use selvedge_kernel::record::invocation::{Code, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Message, Outcome};
use selvedge_kernel::record::shard::{LedgerState, ShardHead};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::transition::{Ended, Journal, Keep, accept, end, signature, write_ledger};
use selvedge_store::entry::{self, Row, Value};

/// How often each part is run alone. The least counts: others may run on this machine at the same time.
const TIMES: usize = 9;
const STEPS_EACH: u32 = 10;

/// Microseconds of CPU for each step of parts that were run alone.
#[derive(Clone, Copy, Debug)]
pub struct Alone {
    /// Making, polling and dropping the future of a step, its value to JSON and back.
    pub handler: f64,
    /// Records, journal entries, seals, chains, ledger lines; and the commits as the log writes them.
    pub encode_and_hash: f64,
    /// Reading encoded rows and putting them in the ordered maps.
    pub table: f64,
}

/// Runs the parts alone over commits that were sampled from the load that is measured.
pub fn alone(sample: &[Commit]) -> Alone {
    let steps = sample.iter().flat_map(|commit| &commit.puts).filter(|put| put.key.get(2) == Some(&(Kind::Journal as u8))).count().max(1) as f64;
    let today = Day(20_000);
    let (mut encoding, mut table) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TIMES {
        let commits = sample.to_vec();
        let start = Instant::now();
        let encoded: Vec<entry::Encoded> = commits.into_iter().map(|commit| entry::encode(commit, today)).collect();
        encoding = encoding.min(start.elapsed().as_secs_f64() * 1e6 / steps);
        let start = Instant::now();
        std::hint::black_box(put_in_maps(&encoded));
        table = table.min(start.elapsed().as_secs_f64() * 1e6 / steps);
    }
    let kernel = least_us(|| transitions(500), f64::from(500 * STEPS_EACH));
    Alone { handler: least_us(|| futures(5_000), 5_000.0), encode_and_hash: kernel + encoding, table }
}

/// The lines of the budget: the parts run alone, the threads less the parts that run in them, and what is left.
pub fn lines(threads: &[(String, f64)], alone: &Alone) -> Vec<(&'static str, f64)> {
    let named = |of: &dyn Fn(&str) -> bool| threads.iter().filter(|(name, _)| of(name)).map(|(_, us)| us).sum::<f64>();
    let log = named(&|name| name == "selvedge-log");
    let fjall = named(&|name| name.starts_with("selvedge-carrie") || name.starts_with("fjall"));
    let workers = named(&|name| name == "selvedge");
    vec![
        ("handler", alone.handler),
        ("encode + hash", alone.encode_and_hash),
        ("log", (log - alone.table).max(0.0)),
        ("table", alone.table),
        ("fjall, the carrier included", fjall),
        ("other: shards, queues, wake-ups", (workers - alone.handler - alone.encode_and_hash).max(0.0)),
    ]
}

fn least_us<T>(mut work: impl FnMut() -> T, steps: f64) -> f64 {
    let one = |_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed().as_secs_f64() * 1e6 / steps
    };
    (0..TIMES).map(one).fold(f64::INFINITY, f64::min)
}

fn put_in_maps(commits: &[entry::Encoded]) -> BTreeMap<u16, BTreeMap<Bytes, Option<Bytes>>> {
    let mut shards: BTreeMap<u16, BTreeMap<Bytes, Option<Bytes>>> = BTreeMap::new();
    for commit in commits {
        let shard = shards.entry(commit.shard.0).or_default();
        for row in entry::rows(&commit.rows).into_iter().flatten().flatten() {
            match row {
                Row::Put { key, value: Value::Inline(value), .. } => shard.insert(key, Some(value)),
                Row::Put { key, .. } | Row::Delete { key } | Row::Fold { prefix: key, .. } => shard.insert(key, None),
            };
        }
    }
    shards
}

/// Invocations of ten steps, from the acceptance to the end, as the kernel decides them: nothing is kept.
fn transitions(invocations: u32) -> usize {
    let mut head = ShardHead::default();
    let (keep, null) = (Keep::default(), Bytes::from_static(b"null"));
    let mut rows = 0;
    for number in 0..invocations {
        let target = ActorId { tenant: "default".to_owned(), kind: "worker".to_owned(), key: format!("0-{number}") };
        let mut uuid = [7; 16];
        uuid[..4].copy_from_slice(&number.to_be_bytes());
        let id = InvocationId(RawId { hash: target.hash16(), uuid });
        let input = Bytes::from_static(b"10");
        let (key, context) = (SealKey([9; 32]), local("default", Millis(1)));
        let handler = "steps".to_owned();
        let message = Message::new(id, target, handler, input.clone(), context);
        let body = seal(&key, &input);
        let (mut record, mut writes) = accept(&mut head, message, Code { version: 1, build: None }, key, body);
        let mut journal = Journal::start(id, key, record.input_seal);
        write_ledger(&mut head, &mut writes, id.0, false, LedgerState::Accepted, (journal.chain, 0), &keep);
        for step in 0..STEPS_EACH {
            let mut entries = Vec::with_capacity(1);
            journal.append(&mut entries, signature(step, OpKind::Step, "one", ""), Ending::Value, &null, None, Millis(1));
            journal.write(&mut writes, &entries, &record.message.target.tenant);
        }
        let ended = Ended { status: Status::Completed, outcome: Outcome::Value(input.clone()), dead_letter: false };
        let last = end(&mut head, &mut record, &journal, &ended, &input, &keep);
        rows += writes.puts.len() + last.puts.len();
    }
    rows
}

type Made = Pin<Box<dyn Future<Output = serde_json::Result<Vec<u8>>>>>;

/// Futures of steps as the facade makes them.
fn futures(steps: u32) -> usize {
    let mut bytes = 0;
    for _ in 0..steps {
        let make: Box<dyn Fn() -> Made> = Box::new(|| Box::pin(async { serde_json::to_vec(&()) }));
        let mut future = std::hint::black_box(&make)();
        if let std::task::Poll::Ready(Ok(value)) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            bytes += value.len() + usize::from(serde_json::from_slice::<()>(&value).is_ok());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_step_add_up_to_what_its_threads_took() {
        let alone = Alone { handler: 1.0, encode_and_hash: 2.0, table: 1.5 };
        let threads = [("selvedge", 8.0), ("selvedge-log", 4.0), ("selvedge-carrie", 2.0), ("fjall:worker", 0.5), ("selvedge-bench", 9.0)];
        let threads = threads.map(|(name, us)| (name.to_owned(), us));
        let parts: Vec<f64> = lines(&threads, &alone).into_iter().map(|part| part.1).collect();
        assert_eq!(parts, [1.0, 2.0, 2.5, 1.5, 2.5, 5.0]);
    }

    #[test]
    fn parts_run_alone_take_time() {
        let alone = alone(&[]);
        assert!(alone.handler > 0.0 && alone.encode_and_hash > 0.0);
        assert!(transitions(1) > 10 && futures(1) == 5);
    }
}
