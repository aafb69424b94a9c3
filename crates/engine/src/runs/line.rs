//! The lines in which runs of a pipeline wait. A line is decided in the shard of (tenant, pipeline, key); a run asks it
//! by message and gives its place back in the commit that ends it. Whoever asks twice has one place.

use selvedge_kernel::id::RunId;
use selvedge_kernel::pipeline::definition::WhenFull;
use selvedge_kernel::pipeline::run::{Run, RunInput};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::key;
use selvedge_kernel::record::line::{Entering, LineEntry, LineId, LineSays};
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::wire;

use crate::shard::{Effect, Shard, VerbError};

/// Lines that a run leaves in one transition.
const LEFT_AT_ONCE: usize = 32;
/// Runs that one of `when_full: replace` cancels; those behind them are cancelled by the next one.
const REPLACED: usize = 20;

impl Shard {
    /// Asks the line of a run for its place.
    pub(super) async fn ask_line(&mut self, entering: Entering, above: Vec<RunId>) -> Result<(), VerbError> {
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        let to = entering.line.hash16().shard(self.wiring.shards);
        let run = entering.run.0;
        let envelope = if above.is_empty() { Envelope::EnterLine(entering) } else { Envelope::EnterLineBelow { entering, above } };
        self.send(to, run, envelope, &mut writes, &mut effects).await?;
        self.write(writes, effects);
        Ok(())
    }

    /// Gives the place of a run that ends back.
    pub(super) async fn give_place_back(&mut self, run: &Run, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let Some(leaving) = run.entering() else { return Ok(()) };
        let to = leaving.line.hash16().shard(self.wiring.shards);
        self.send(to, leaving.run.0, Envelope::LeaveLine(leaving), writes, effects).await
    }

    /// Leaves lines for good, in transitions of their own.
    pub(super) async fn leave_lines(&mut self, lines: Vec<Entering>) -> Result<(), VerbError> {
        for some in lines.chunks(LEFT_AT_ONCE) {
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            for line in some {
                let to = line.line.hash16().shard(self.wiring.shards);
                self.send(to, line.run.0, Envelope::LeaveLine(line.clone()), &mut writes, &mut effects).await?;
            }
            self.write(writes, effects);
        }
        Ok(())
    }

    async fn line_of(&self, line: &LineId, most: usize) -> Result<Vec<(u64, LineEntry)>, VerbError> {
        let mut entries = Vec::new();
        for (row, value) in self.scan(under(&line.entries()), most).await? {
            if let Some(n) = key::last_u64(&row) {
                entries.push((n, wire::decode("place in line", &value)?));
            }
        }
        Ok(entries)
    }

    /// Whether a run holds a place in a line; none if it is not there.
    async fn standing(&self, line: &LineId, run: RunId) -> Result<Option<bool>, VerbError> {
        let Some(bytes) = self.get(line.place(run)).await? else { return Ok(None) };
        let n: u64 = wire::decode("number in line", &bytes)?;
        Ok(Some(match self.get(line.entry(n)).await? {
            Some(bytes) => wire::decode::<LineEntry>("place in line", &bytes)?.holds,
            None => false,
        }))
    }

    /// The first run of a line: whom those that wait in it wait for.
    pub(super) async fn holder_of(&self, line: &LineId) -> Result<Option<RunId>, VerbError> {
        Ok(self.line_of(line, 1).await?.first().map(|(_, entry)| entry.run))
    }

    async fn tell_run_of_line(&mut self, run: RunId, says: LineSays, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let to = run.0.hash.shard(self.wiring.shards);
        self.send(to, run.0, Envelope::Line { run, says }, writes, effects).await
    }

    /// Takes a run into a line, unless one of those that wait for it holds a place there: they share that place.
    pub(crate) async fn enter_line(&mut self, entering: Entering, above: &[RunId], writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let Entering { line, run, limit, when_full } = entering;
        let first = self.line_of(&line, limit as usize).await?;
        let holder = first.first().map_or(run, |(_, entry)| entry.run);
        if let Some(holds) = self.standing(&line, run).await? {
            // It asks again: it was reopened.
            let says = if holds { LineSays::Admitted } else { LineSays::Waits { holder } };
            return self.tell_run_of_line(run, says, writes, effects).await;
        }
        for holder in above {
            if self.standing(&line, *holder).await? == Some(true) {
                return self.tell_run_of_line(run, LineSays::Below { asked: line.key.clone(), holder: *holder }, writes, effects).await;
            }
        }
        let holds = first.len() < limit as usize;
        if !holds && when_full == WhenFull::Reject {
            return self.tell_run_of_line(run, LineSays::Full { holder }, writes, effects).await;
        }
        if !holds && when_full == WhenFull::Replace {
            let all = self.line_of(&line, limit as usize + REPLACED).await?;
            let gone = (all.len() + 1).saturating_sub(limit as usize).min(REPLACED);
            for (_, entry) in all.into_iter().take(gone) {
                let to = entry.run.0.hash.shard(self.wiring.shards);
                let reason = format!("{run}, which replaces it");
                self.send(to, run.0, Envelope::CancelRun { run: entry.run, reason }, writes, effects).await?;
            }
        }
        let n = self.next_number();
        writes.put(line.place(run), wire::encode(&n));
        writes.put(line.entry(n), wire::encode(&LineEntry { run, holds }));
        let says = if holds { LineSays::Admitted } else { LineSays::Waits { holder } };
        self.tell_run_of_line(run, says, writes, effects).await
    }

    /// Takes a run out of a line, and lets the next ones go.
    pub(crate) async fn leave_line(&mut self, leaving: Entering, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let Entering { line, run, limit, .. } = leaving;
        let Some(bytes) = self.get(line.place(run)).await? else { return Ok(()) };
        let gone: u64 = wire::decode("number in line", &bytes)?;
        writes.delete(line.place(run));
        writes.delete(line.entry(gone));
        let left = self.line_of(&line, limit as usize + 1).await?.into_iter().filter(|(n, _)| *n != gone);
        // A limit that was raised since lets more of them go, a few with each that leaves.
        let next: Vec<_> = left.take(limit as usize).filter(|(_, entry)| !entry.holds).take(REPLACED).collect();
        for (n, entry) in next {
            writes.put(line.entry(n), wire::encode(&LineEntry { holds: true, ..entry }));
            self.tell_run_of_line(entry.run, LineSays::Admitted, writes, effects).await?;
        }
        Ok(())
    }

    /// Tells a run what its line says: written before the mark of the message is raised.
    pub(crate) async fn take_line(&mut self, run: RunId, says: LineSays) -> Result<(), VerbError> {
        self.apply_to_run(run, RunInput::Line(says)).await
    }
}
