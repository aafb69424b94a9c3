//! Backups of the bank, asked of the life that holds it while it works and may be killed, and their copies.
//!
//! Where a backup stands is between the moment it was asked for and the moment it was there. What the two files outside said
//! before the first must be in it; what they said between the two may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use selvedge::control::{Control, Request};

use crate::life::Place;
use crate::record::{self, Answer, Effect, Record};

/// A part of a file of lines: how long it was before, and how long after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    before: usize,
    after: usize,
}

/// A backup that is whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Where it is.
    pub dir: PathBuf,
    answers: Span,
    ledger: Span,
}

/// Somebody who asks the next life for a backup.
pub struct Asking {
    asked: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Option<Taken>, String>>,
}

impl Asking {
    /// Waits for a life of that place, lets it work for `after`, then asks it for a backup in `dir`, which is not there.
    #[must_use]
    pub fn begin(place: Place, dir: PathBuf, after: Duration) -> Asking {
        let (asked, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (asks, ended) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))?;
            runtime.block_on(ask(&place, dir, after, (&asks, &ended)))
        });
        Asking { asked, over, thread }
    }

    /// Whether the life has been asked.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether it has the answer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// The life is over: what came of it. None if that was before the backup was whole; nothing is left of it then.
    pub fn end(self) -> Result<Option<Taken>, String> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| "whoever asked for a backup panicked".to_owned())?
    }
}

async fn ask(place: &Place, dir: PathBuf, after: Duration, (asked, over): (&AtomicBool, &AtomicBool)) -> Result<Option<Taken>, String> {
    let mut control = loop {
        match Control::connect(&place.data()).await {
            Ok(Some(control)) => break control,
            _ if over.load(Ordering::SeqCst) => return Ok(None),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    tokio::time::sleep(after).await;
    let lengths = || Ok::<_, String>((length(&place.answers())?, length(&place.ledger())?));
    let before = lengths()?;
    asked.store(true, Ordering::SeqCst);
    match control.ask(&Request::Backup { to: dir.clone() }).await {
        Ok(_) => {
            let after = lengths()?;
            let span = |before, after| Span { before, after };
            Ok(Some(Taken { dir, answers: span(before.0, after.0), ledger: span(before.1, after.1) }))
        }
        // A life that a kill or its own end cut short: what it wrote is no backup.
        Err(problem) => {
            if problem.code != "holder_gone" {
                return Err(format!("no backup was taken: {} ({})", problem.message, problem.code));
            }
            if dir.exists() {
                std::fs::remove_dir_all(&dir).map_err(|error| format!("{} cannot be removed: {error}", dir.display()))?;
            }
            Ok(None)
        }
    }
}

fn length(path: &Path) -> Result<usize, String> {
    match std::fs::metadata(path) {
        Ok(meta) => usize::try_from(meta.len()).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Makes a bank of a backup in `copy`, which is not there: the data, and what the files outside said when it was taken.
pub fn restore(selvedge: &Path, of: &Place, taken: &Taken, copy: &Place) -> Result<(), String> {
    std::fs::create_dir_all(&copy.0).map_err(|error| format!("{} cannot be made: {error}", copy.0.display()))?;
    let mut command = Command::new(selvedge);
    command.arg("restore").arg("--from").arg(&taken.dir).arg("--data").arg(copy.data());
    let done = command.output().map_err(|error| format!("restore cannot be started: {error}"))?;
    if !done.status.success() {
        return Err(format!("{} is not restored ({}): {}", taken.dir.display(), done.status, String::from_utf8_lossy(&done.stderr).trim()));
    }
    let (answers, between) = parts::<Answer>(&of.answers(), taken.answers)?;
    // A transfer that was tried in between may be in it: it is asked for like the others.
    let tried = between.into_iter().filter(|answer| matches!(answer, Answer::Try { .. }));
    write(&copy.answers(), answers.into_iter().chain(tried))?;
    write(&copy.ledger(), parts::<Effect>(&of.ledger(), taken.ledger)?.0)
}

/// What happened outside, as the copy knows it: what the ledger said before, what it itself added, and of what happened while
/// the backup was taken the steps that it did not run again, because their results were in it.
pub fn effects(of: &Place, taken: &Taken, copy: &Place) -> Result<Vec<Effect>, String> {
    Ok(with_those_between(record::read(&copy.ledger())?, parts(&of.ledger(), taken.ledger)?.1))
}

fn with_those_between(known: Vec<Effect>, between: Vec<Effect>) -> Vec<Effect> {
    let step = |effect: &Effect| if let Effect::Attempt { transfer, step, .. } = effect { Some((*transfer, step.clone())) } else { None };
    let ran: BTreeSet<_> = known.iter().filter_map(step).collect();
    let mut all: Vec<Effect> = between.into_iter().filter(|effect| step(effect).is_some_and(|step| !ran.contains(&step))).collect();
    all.extend(known);
    all
}

/// The lines before, and those in between.
fn parts<T: for<'a> serde::Deserialize<'a>>(path: &Path, span: Span) -> Result<(Vec<T>, Vec<T>), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let part = |from: usize, to: usize| text.get(from..to).ok_or_else(|| format!("{} has no bytes {from}..{to}", path.display()));
    Ok((record::parse(path, part(0, span.before)?)?, record::parse(path, part(span.before, span.after)?)?))
}

fn write(path: &Path, lines: impl IntoIterator<Item = impl serde::Serialize>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
    let record = Record::open(path).map_err(failed)?;
    lines.into_iter().try_for_each(|line| record.write(&line)).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn attempt(transfer: u64, step: &str, key: &str) -> Effect {
        Effect::Attempt { key: key.to_owned(), attempt: 1, step: step.to_owned(), transfer }
    }

    #[test]
    fn a_step_that_ran_while_the_backup_was_taken_counts_unless_the_copy_ran_it_itself() {
        let known = vec![attempt(1, "debit", "a"), attempt(2, "debit", "new")];
        let between = vec![attempt(2, "debit", "old"), attempt(1, "credit", "b"), Effect::Finished { key: "b".to_owned() }];
        assert_eq!(with_those_between(known.clone(), between), [attempt(1, "credit", "b"), known[0].clone(), known[1].clone()]);
    }

    #[test]
    fn nobody_who_holds_the_place_and_an_end_give_no_backup() {
        let dir = std::env::temp_dir().join(format!("selvedge-kill-nobody-{}", std::process::id()));
        let asking = Asking::begin(Place(dir.clone()), dir.join("backup"), Duration::ZERO);
        assert_eq!(asking.end().unwrap(), None);
    }

    #[test]
    fn lines_are_parted_where_the_backup_began() {
        let dir = std::env::temp_dir().join(format!("selvedge-kill-parts-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("lines");
        write(&path, [1, 22, 333]).unwrap();
        assert_eq!(parts::<u32>(&path, Span { before: 2, after: 5 }).unwrap(), (vec![1], vec![22]));
        assert!(parts::<u32>(&path, Span { before: 2, after: 50 }).unwrap_err().contains("no bytes 2..50"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
