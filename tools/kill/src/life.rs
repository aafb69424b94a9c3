//! One life of the bank's process: it opens what the last life left, goes on with it and takes new transfers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use selvedge::{CallError, Client, Engine, InvocationId};

use crate::bank::{self, BALANCE, COUNTED, TALLY, TRANSFER};
use crate::record::{self, Answer, Final, Record};
use crate::seed::Seed;
use crate::transfer::{self, ACCOUNTS};

/// New transfers of one life.
const TRANSFERS: u64 = 24;

/// How many of them are on their way at once.
const CLIENTS: u64 = 8;

/// How long the last run waits for one transfer before it asks why.
const PATIENCE: Duration = Duration::from_secs(30);

/// What ends a life with an error.
pub type Failed = Box<dyn std::error::Error>;

/// Where the files of a bank lie.
#[derive(Clone, Debug)]
pub struct Place(pub PathBuf);

impl Place {
    /// Selvedge's data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The ledger: what happened outside.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger.jsonl")
    }

    /// What the client was told.
    #[must_use]
    pub fn answers(&self) -> PathBuf {
        self.0.join("answers.jsonl")
    }

    /// What the last run found.
    #[must_use]
    pub fn last(&self) -> PathBuf {
        self.0.join("final.json")
    }
}

/// A life that a kill may end at any moment: new transfers, and old ones started again under their keys.
pub async fn some(place: &Place, seed: u64, cycle: u64) -> Result<(), Failed> {
    let first = tried(&record::read(&place.answers())?).last().map_or(1, |last| last + 1);
    let answers = Record::open(&place.answers())?;
    let engine = Engine::open(place.data(), bank::app(&place.ledger())?).await?;
    let local = tokio::task::LocalSet::new();
    let clients = (0..CLIENTS).map(|client| {
        let (engine, answers) = (engine.local(), answers.clone());
        let mut draw = Seed::new(seed, cycle << 8 | client);
        local.spawn_local(async move {
            for number in (first..first + TRANSFERS).filter(|number| number % CLIENTS == client) {
                start(&engine, &answers, seed, number).await?;
                if number > 1 && draw.below(3) == 0 {
                    start(&engine, &answers, seed, 1 + draw.below(number - 1)).await?;
                }
            }
            Ok::<(), Failed>(())
        })
    });
    let clients: Vec<_> = clients.collect();
    local
        .run_until(async {
            for client in clients {
                client.await??;
            }
            Ok::<(), Failed>(())
        })
        .await?;
    Ok(engine.close().await?)
}

/// Starts one transfer, notes that it was acknowledged, waits for its result and notes that.
async fn start(client: &Client, answers: &Record, seed: u64, number: u64) -> Result<(), Failed> {
    let key = transfer::key(number);
    let ask = || client.call(TRANSFER.on(&key), transfer::transfer(seed, number)).idempotency_key(&key);
    answers.write(&Answer::Try { transfer: number })?;
    let result = match ask().wait(Duration::ZERO).await {
        Err(CallError::Open { id }) => {
            answers.write(&Answer::Acknowledged { transfer: number, invocation: id.to_string() })?;
            ask().await?
        }
        ended => ended?,
    };
    answers.write(&Answer::Result { transfer: number, result: serde_json::to_value(result)? })?;
    Ok(())
}

/// The last life: nobody kills it. It lets everything come to its end and writes down what it finds.
pub async fn last(place: &Place, seed: u64) -> Result<(), Failed> {
    let answers: Vec<Answer> = record::read(&place.answers())?;
    let engine = Engine::open(place.data(), bank::app(&place.ledger())?).await?;
    let client = engine.local();
    let mut last = Final::default();
    let mut acknowledged = BTreeMap::new();
    for answer in &answers {
        if let Answer::Acknowledged { transfer, invocation } = answer {
            acknowledged.insert(*transfer, invocation.clone());
        }
    }
    for (number, invocation) in &acknowledged {
        let id: InvocationId = invocation.parse()?;
        match tokio::time::timeout(PATIENCE, client.result::<bank::Receipt>(id)).await {
            Ok(Ok(result)) => last.results.push((*number, serde_json::to_value(result)?)),
            Ok(Err(error)) => last.lost.push((*number, error.to_string())),
            Err(_) => last.waiting.push((*number, client.why(id).await?.sentence())),
        }
    }
    for number in tried(&answers) {
        let key = transfer::key(number);
        let again = client.call(TRANSFER.on(&key), transfer::transfer(seed, number)).idempotency_key(&key);
        match again.wait(PATIENCE).await {
            Err(CallError::Open { id }) => last.waiting.push((number, client.why(id).await?.sentence())),
            ended => last.repeated.push((number, serde_json::to_value(ended?)?)),
        }
    }
    for account in 0..ACCOUNTS {
        last.balances.push(client.call(BALANCE.on(transfer::account(account)), ()).await?);
    }
    last.tally = client.call(COUNTED.on(TALLY), ()).await?;
    for shard in client.verify().await? {
        last.verified += shard.entries;
        last.faults.extend(shard.faults);
    }
    engine.close().await?;
    std::fs::write(place.last(), serde_json::to_vec_pretty(&last)?)?;
    Ok(())
}

fn tried(answers: &[Answer]) -> BTreeSet<u64> {
    answers.iter().filter_map(|answer| if let Answer::Try { transfer } = answer { Some(*transfer) } else { None }).collect()
}
