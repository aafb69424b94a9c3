//! A new store made of an export, with any number of shards.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use selvedge_kernel::ports::{Epoch, Owner};
use selvedge_kernel::record::deal::{Dealer, Dealt};
use selvedge_kernel::record::portable::{self, Head, LedgerWalk, Line, Unportable};
use selvedge_kernel::record::shard::LedgerLine;
use selvedge_kernel::wire;

use crate::backup::{EPOCHS_ABOVE, ROWS_TOLD};
use crate::bring::Chunk;
use crate::check;
use crate::directory::{self, INCOMPLETE};
use crate::disk::{Disk, Faults};
use crate::dump::Record;
use crate::export::PortError;
use crate::log::ShardState;
use crate::options;
use crate::place::{self, failed};
use crate::position::Position;
use crate::tree::Tree;

/// No store has more shards: each is opened, and scanned by every list.
pub const SHARDS_MOST: u16 = 1024;

/// What was imported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// The id of the store that it was taken of, as hexadecimal text.
    pub store: String,
    /// How many shards that had.
    pub shards_before: u16,
    /// How many this one has.
    pub shards: u16,
    /// Rows.
    pub rows: u64,
    /// Messages between shards that are on their way.
    pub envelopes: u64,
    /// What `run` had noted.
    pub notes: Option<String>,
}

/// A file of an export, line by line.
struct Lines<'a> {
    path: &'a Path,
    input: BufReader<File>,
    hash: blake3::Hasher,
    number: u64,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<(Lines<'a>, Head), PortError> {
        let file = File::open(path).map_err(failed("cannot read the export", path))?;
        let mut lines = Lines { path, input: BufReader::new(file), hash: blake3::Hasher::new(), number: 0 };
        match lines.next()? {
            Some(Line::Head(head)) => {
                portable::known(&head).map_err(|reason| lines.damaged(reason))?;
                Ok((lines, head))
            }
            _ => Err(lines.damaged(Unportable("it does not begin with the head of an export".to_owned()))),
        }
    }

    fn damaged(&self, reason: Unportable) -> PortError {
        PortError::Damaged { file: self.path.to_owned(), line: self.number, reason }
    }

    /// The next line; none behind the last, once count and hash were found to be right.
    fn next(&mut self) -> Result<Option<Line>, PortError> {
        let mut text = String::new();
        self.number += 1;
        let read = self.input.read_line(&mut text);
        if let Err(error) = &read
            && error.kind() == std::io::ErrorKind::InvalidData
        {
            return Err(self.damaged(Unportable("it is no text".to_owned())));
        }
        if read.map_err(failed("cannot read the export", self.path))? == 0 || !text.ends_with('\n') {
            return Err(self.damaged(Unportable("it ends too early: it was not written to its end, or was cut".to_owned())));
        }
        let line = portable::read(text.trim_end_matches('\n')).map_err(|reason| self.damaged(reason))?;
        if let Line::End(end) = &line {
            if end.lines != self.number - 1 || end.blake3 != self.hash.finalize().to_hex().as_str() {
                return Err(self.damaged(Unportable("count or hash do not fit the lines before it: something was changed".to_owned())));
            }
            if self.input.fill_buf().map_err(failed("cannot read the export", self.path))?.is_empty() {
                return Ok(None);
            }
            return Err(self.damaged(Unportable("something stands behind the end".to_owned())));
        }
        self.hash.update(text.as_bytes());
        Ok(Some(line))
    }
}

/// Reads an export through: every line, its ledgers, and that it can be dealt out.
fn checked(file: &Path, shards: u16) -> Result<Head, PortError> {
    let (mut lines, head) = Lines::open(file)?;
    let mut walks = vec![LedgerWalk::default(); head.ledgers.len()];
    let mut dealer = Dealer::new(&head, shards);
    while let Some(line) = lines.next()? {
        if let Line::Ledger(ledger) = &line {
            let walked = wire::decode::<LedgerLine>("ledger line", &ledger.value).map_err(Unportable::from).and_then(|line| {
                let walk = walks.get_mut(usize::from(ledger.shard));
                walk.ok_or_else(|| Unportable(format!("there is no shard {}", ledger.shard)))?.line(ledger.n, &line)
            });
            walked.map_err(|reason| lines.damaged(reason))?;
        }
        dealer.deal(line).map_err(|reason| lines.damaged(reason))?;
    }
    for (walk, ledger) in walks.iter().zip(&head.ledgers) {
        walk.ended(ledger).map_err(|reason| lines.damaged(reason))?;
    }
    Ok(head)
}

/// Makes a new store of an export in an empty or new directory, with so many shards: reads the export through first, then
/// writes, then checks what was written. A directory in which this was interrupted says so, and is refused until it is
/// removed. The store has an id of its own.
///
/// # Errors
/// The directory is not empty, the export is damaged, or something cannot be written.
pub fn import(file: &Path, to: &Path, shards: u16, command: &str, mut progress: impl FnMut(u64)) -> Result<Imported, PortError> {
    if shards == 0 || shards > SHARDS_MOST {
        return Err(PortError::Shards { asked: shards, most: SHARDS_MOST });
    }
    place::empty(to)?;
    let head = checked(file, shards)?;
    let disk = Disk::new(Faults::none());
    let marker = to.join(INCOMPLETE);
    disk.replace(&marker, format!("from {}\n", file.display()).as_bytes()).map_err(failed("cannot write", &marker))?;
    let lock = directory::lock(to, command)?;
    let tree_path = to.join("tree");
    let mut tree = Tree::open(&tree_path, shards).map_err(failed("cannot make the tree", &tree_path))?;
    let (rows, envelopes) = fill(file, shards, &mut tree, &tree_path, &mut progress)?;
    let state = ShardState { epoch: Epoch(head.epoch.saturating_add(EPOCHS_ABOVE)), owner: Owner([0; 16]), last: 0 };
    let position = Position { shards: vec![state; usize::from(shards)], ..Position::start(shards) };
    tree.set_position(position).map_err(failed("cannot write the tree", &tree_path))?;
    drop(tree);
    std::fs::create_dir(to.join("log")).map_err(failed("cannot create the log in", to))?;
    directory::make(to, shards, &disk)?;
    // Only now it is a store.
    let done = std::fs::remove_file(&marker).and_then(|()| disk.sync_directory(to));
    done.map_err(failed("cannot remove", &marker))?;
    drop(lock);
    let report = check::check(to)?;
    if report.rows + report.expiring_rows != rows {
        let reason = Unportable(format!("{rows} rows were dealt out, {} are there", report.rows + report.expiring_rows));
        return Err(PortError::Damaged { file: file.to_owned(), line: 0, reason });
    }
    Ok(Imported { store: head.store, shards_before: head.ledgers.len() as u16, shards, rows, envelopes, notes: head.notes })
}

/// Brings all rows into the tree; gives how many, and how many envelopes are among them.
fn fill(file: &Path, shards: u16, tree: &mut Tree, tree_path: &Path, progress: &mut impl FnMut(u64)) -> Result<(u64, u64), PortError> {
    let (mut lines, head) = Lines::open(file)?;
    let mut dealer = Dealer::new(&head, shards);
    let mut chunk = Chunk::new(options::today());
    let (mut rows, mut envelopes) = (0, 0);
    let mut add = |dealt: Vec<Dealt>, tree: &mut Tree| {
        for Dealt { shard, key, value, until } in dealt {
            chunk.add(Record { shard, key, value, expires: until });
            rows += 1;
            if rows % ROWS_TOLD == 0 {
                progress(rows);
            }
        }
        if chunk.is_full() { chunk.bring(tree) } else { Ok(()) }
    };
    while let Some(line) = lines.next()? {
        envelopes += u64::from(matches!(line, Line::Envelope(_)));
        let dealt = dealer.deal(line).map_err(|reason| lines.damaged(reason))?;
        add(dealt, tree).map_err(failed("cannot write the tree", tree_path))?;
    }
    add(dealer.heads(), tree).map_err(failed("cannot write the tree", tree_path))?;
    chunk.bring(tree).map_err(failed("cannot write the tree", tree_path))?;
    Ok((rows, envelopes))
}
