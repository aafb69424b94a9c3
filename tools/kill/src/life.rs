//! One life of the bank's process: it opens what the last life left, goes on with it and takes new transfers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use selvedge::control::{Control, Request};
use selvedge::{CallError, Client, Config, Engine, InvocationId};

use crate::bank::{self, BOOK, COUNTED, NOTES, Receipt, TRANSFER};
use crate::record::{self, Answer, Final, Record};
use crate::seed::Seed;
use crate::transfer::{self, ACCOUNTS, NOTARIES, TALLIES};

/// New transfers of one life.
const TRANSFERS: u64 = 24;

/// How many of them are on their way at once.
const CLIENTS: u64 = 8;

/// How long the last run waits for one transfer before it asks why.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the notary is made of.
const MANIFEST: &str = include_str!("../work/app.yaml");
const NOTARY: &str = include_str!("../work/notary.py");
const CLIENT: &str = include_str!("../../../clients/python/selvedge.py");

/// In every eighth life somebody looks at what is blocked.
const LIVES_UNSEEN: u64 = 8;

/// What is blocked, for a list.
const BLOCKED: &str = "status:blocked";

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

    /// The number of the last life that had opened the data.
    #[must_use]
    pub fn opened(&self) -> PathBuf {
        self.0.join("opened")
    }

    /// Whether that life has.
    #[must_use]
    pub fn has_opened(&self, cycle: u64) -> bool {
        std::fs::read_to_string(self.opened()).is_ok_and(|text| text == cycle.to_string())
    }

    /// The declaration of the notary.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.0.join("app.yaml")
    }

    /// Puts the notary's files there, if they are not.
    pub fn furnish(&self) -> std::io::Result<()> {
        if self.manifest().exists() {
            return Ok(());
        }
        std::fs::write(self.0.join("selvedge.py"), CLIENT)?;
        std::fs::write(self.0.join("notary.py"), NOTARY)?;
        std::fs::write(self.manifest(), MANIFEST)
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
    let engine = open(place).await?;
    std::fs::write(place.opened(), cycle.to_string())?;
    if cycle.is_multiple_of(LIVES_UNSEEN) {
        look_again(place, &mut BTreeSet::new()).await?;
    }
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

/// Opens the bank, whose scripts do not outlive this process.
async fn open(place: &Place) -> Result<Engine, Failed> {
    let shim = std::env::current_exe()?.with_file_name("selvedge");
    Ok(Engine::open(Config::on(place.data()).shim(shim), bank::app(place)?).await?)
}

/// Looks again at what is blocked, as whoever is on call would: a script whose start ten kills in a row have met is. What is
/// blocked a second time in one life stays so. Gives how many.
async fn look_again(place: &Place, known: &mut BTreeSet<String>) -> Result<u64, Failed> {
    let Some(mut control) = Control::connect(&place.data()).await? else { return Err("nobody answers on the control socket".into()) };
    let blocked = control.ask(&Request::Invocations { all: false, filter: BLOCKED.to_owned() }).await?;
    let ids = blocked.as_array().into_iter().flatten().filter_map(|line| line["id"].as_str());
    let mut again = 0;
    for id in ids {
        if known.insert(id.to_owned()) {
            control.ask(&Request::RetryInvocation { id: id.to_owned() }).await?;
            again += 1;
        }
    }
    Ok(again)
}

/// Does that for ever, seldom: it reads through all that there is.
async fn keep_looking(place: &Place, known: &mut BTreeSet<String>) -> Result<std::convert::Infallible, Failed> {
    loop {
        look_again(place, known).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
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
    let engine = open(place).await?;
    let (client, mut known) = (engine.local(), BTreeSet::new());
    let mut last = tokio::select! {
        found = found(&client, &answers, seed) => found?,
        never = keep_looking(place, &mut known) => match never? {},
    };
    last.looked_again = known.len() as u64;
    engine.close().await?;
    std::fs::write(place.last(), serde_json::to_vec_pretty(&last)?)?;
    Ok(())
}

/// Waits for the end of everything, and asks for it.
async fn found(client: &Client, answers: &[Answer], seed: u64) -> Result<Final, Failed> {
    let mut last = Final::default();
    let mut acknowledged = BTreeMap::new();
    for answer in answers {
        if let Answer::Acknowledged { transfer, invocation } = answer {
            acknowledged.insert(*transfer, invocation.clone());
        }
    }
    for (number, invocation) in &acknowledged {
        match ended::<Receipt>(client, invocation.parse()?).await? {
            Ended::Result(receipt) => last.results.push((*number, serde_json::to_value(receipt)?)),
            Ended::Error(error) => last.lost.push((*number, error)),
            Ended::Not(why) => last.waiting.push((*number, why)),
        }
    }
    for number in tried(answers) {
        let key = transfer::key(number);
        let again = client.call(TRANSFER.on(&key), transfer::transfer(seed, number)).idempotency_key(&key);
        let receipt = match again.wait(PATIENCE).await {
            Err(CallError::Open { id }) => {
                last.waiting.push((number, client.why(id).await?.sentence()));
                continue;
            }
            given => given?,
        };
        for message in &receipt.sent {
            match ended::<serde_json::Value>(client, message.parse()?).await? {
                Ended::Result(_) => last.messages += 1,
                Ended::Error(error) => last.lost.push((number, format!("message {message}: {error}"))),
                Ended::Not(why) => last.waiting.push((number, why)),
            }
        }
        last.repeated.push((number, serde_json::to_value(receipt)?));
    }
    for notary in 0..NOTARIES {
        last.noted.extend(client.call(NOTES.on(transfer::notary(notary)), ()).await?);
    }
    last.counted = counted(client, &last).await?;
    for account in 0..ACCOUNTS {
        last.books.push(client.call(BOOK.on(transfer::account(account)), ()).await?);
    }
    for shard in client.verify().await? {
        last.verified += shard.entries;
        last.faults.extend(shard.faults);
    }
    Ok(last)
}

/// What became of an invocation.
enum Ended<O> {
    Result(O),
    Error(String),
    /// It has not ended, and that is why.
    Not(String),
}

/// Waits for the end of an invocation, as long as patience goes. A message may be on its way, known to nobody yet.
async fn ended<O: serde::de::DeserializeOwned>(client: &Client, id: InvocationId) -> Result<Ended<O>, Failed> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(until, client.result::<O>(id)).await {
            Ok(Ok(result)) => return Ok(Ended::Result(result)),
            Err(_) => return Ok(Ended::Not(client.why(id).await?.sentence())),
            Ok(Err(CallError::Failed { code, message, .. })) => return Ok(Ended::Error(format!("{code}: {message}"))),
            Ok(Err(error)) if tokio::time::Instant::now() > until => return Ok(Ended::Error(error.to_string())),
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// What the tallies counted. What a script sends is named by no receipt: as long as patience goes, it may be on its way.
async fn counted(client: &Client, last: &Final) -> Result<BTreeMap<String, u64>, Failed> {
    let moved = last.repeated.iter().filter(|(_, result)| result["moved"] == true).count();
    let until = tokio::time::Instant::now() + if last.waiting.is_empty() { PATIENCE } else { Duration::ZERO };
    loop {
        let mut counted = BTreeMap::new();
        for tally in 0..TALLIES {
            counted.extend(client.call(COUNTED.on(transfer::tally(tally)), ()).await?);
        }
        if counted.len() >= moved || tokio::time::Instant::now() > until {
            return Ok(counted);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn tried(answers: &[Answer]) -> BTreeSet<u64> {
    answers.iter().filter_map(|answer| if let Answer::Try { transfer } = answer { Some(*transfer) } else { None }).collect()
}
