//! What the store relies on in fjall's ingestion: kills in its middle, readers beside it, a keyspace dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::differential::Random;
use crate::support::Place;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable};

const CHILD: &str = "SELVEDGE_TEST_INGESTION";
const ROWS: u32 = 1_000;

fn open(path: &Path) -> (Database, Keyspace) {
    let database = Database::builder(path).worker_threads(1).cache_size(8 << 20).open().unwrap();
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
    (database, rows)
}

/// Brings every row to `round`; rows that are no multiple of `round` are removed.
fn ingest(rows: &Keyspace, round: u32) {
    let mut ingestion = rows.start_ingestion().unwrap();
    for row in 0..ROWS {
        let value = [round.to_be_bytes().as_slice(), &[7; 300]].concat();
        if row % (round % 7 + 1) == 0 { ingestion.write(row.to_be_bytes(), value).unwrap() } else { ingestion.write_tombstone(row.to_be_bytes()).unwrap() }
    }
    ingestion.finish().unwrap();
}

/// The round that the rows stand at; panics if they stand at two.
fn round(found: impl Iterator<Item = fjall::Guard>) -> u32 {
    let rows: Vec<_> = found.map(|guard| guard.into_inner().unwrap()).collect();
    let Some((_, first)) = rows.first() else { return 0 };
    let round = u32::from_be_bytes(first[..4].try_into().unwrap());
    let keys: Vec<u32> = rows.iter().map(|(key, _)| u32::from_be_bytes(key[..].try_into().unwrap())).collect();
    assert_eq!(keys, (0..ROWS).filter(|row| row % (round % 7 + 1) == 0).collect::<Vec<_>>(), "round {round}");
    assert!(rows.iter().all(|(_, value)| value[..4] == first[..4]), "two rounds at once");
    round
}

/// The other process of the test below: ingests round after round until it is killed.
#[test]
fn child_ingests_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (_database, rows) = open(Path::new(&path));
    let mut next = round(rows.iter()) + 1;
    loop {
        ingest(&rows, next);
        println!("round {next}");
        next += 1;
    }
}

#[test]
fn ingestion_is_whole_or_not_at_all_when_the_process_is_killed_in_its_middle() {
    let place = Place::new("ingestion-kill");
    let mut random = Random(7);
    let mut last = 0;
    for cycle in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ingestion::child_ingests_until_it_is_killed", "--nocapture"])
            .env(CHILD, place.data())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut rounds = lines.filter_map(|line| line.split("round ").nth(1)?.trim().parse::<u32>().ok());
        let mut told = rounds.next().unwrap();
        let spin = Instant::now();
        let until = Duration::from_micros(random.below(120_000));
        while spin.elapsed() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told = rounds.last().unwrap_or(told);
        let (_database, rows) = open(&place.data());
        let found = round(rows.iter());
        assert!(found >= told && found <= told + 1, "cycle {cycle}: told {told}, found {found}");
        assert!(found > last, "cycle {cycle}");
        ingest(&rows, found + 1);
        assert_eq!(round(rows.iter()), found + 1, "cycle {cycle}: an ingestion after reopening is the newest");
        last = found + 1;
    }
}

#[test]
fn readers_beside_an_ingestion_see_all_of_it_or_nothing() {
    let place = Place::new("ingestion-readers");
    let (database, rows) = open(&place.data());
    ingest(&rows, 1);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (database, rows, done) = (database.clone(), rows.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut last = 0;
                loop {
                    let was_done = done.load(Ordering::Acquire);
                    let snapshot = database.snapshot();
                    let found = round(snapshot.iter(&rows));
                    let again = snapshot.get(&rows, 0u32.to_be_bytes()).unwrap().unwrap();
                    assert_eq!(again[..4], found.to_be_bytes(), "a snapshot stands still");
                    assert!(found >= last, "from {last} back to {found}");
                    last = found;
                    if was_done {
                        return last;
                    }
                }
            })
        })
        .collect();
    for next in 2..40 {
        ingest(&rows, next);
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 39);
    }
}

#[test]
fn dropped_keyspace_is_gone_and_its_readers_finish() {
    let place = Place::new("ingestion-drop");
    {
        let (database, rows) = open(&place.data());
        ingest(&rows, 1);
        let day = database.keyspace("day-5", KeyspaceCreateOptions::default).unwrap();
        ingest(&day, 1);
        let mut reader = database.snapshot().iter(&day);
        assert!(reader.next().is_some());
        let folder = day.path().to_owned();
        database.delete_keyspace(day).unwrap();
        assert!(!database.keyspace_exists("day-5"));
        assert_eq!(round(rows.iter()), 1);
        let rest = reader.filter_map(|guard| guard.into_inner().ok()).count();
        assert_eq!(rest + 1, (0..ROWS).filter(|row| row % 2 == 0).count(), "a reader that began before goes on to its end");
        drop(database);
        drop(rows);
        assert!(!folder.exists(), "the files are removed");
    }
    let (database, rows) = open(&place.data());
    assert!(!database.keyspace_exists("day-5"));
    assert_eq!(round(rows.iter()), 1);
    let day = database.keyspace("day-5", KeyspaceCreateOptions::default).unwrap();
    assert!(day.is_empty().unwrap(), "a keyspace of the same name begins empty");
}
