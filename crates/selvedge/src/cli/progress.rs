//! How a run is watched: a bar on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use selvedge_kernel::machine::StageState;
use selvedge_kernel::pipeline::run::{RunStatus, StageStatus};
use selvedge_kernel::record::run::Happening;
use selvedge_kernel::waiting::Waiting;

use super::{happened, print};

/// How often plain lines say how far a stage is.
const EVERY: Duration = Duration::from_secs(2);

/// Where lines about a run go. Clones share the bar.
#[derive(Clone)]
pub struct Lines {
    bar: Option<ProgressBar>,
}

impl Lines {
    /// A bar if standard error is a terminal.
    pub fn open() -> Lines {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1).with_message("opening");
            // The template is ours and parses.
            let style = ProgressStyle::with_template("{spinner} {msg} [{bar:32}] {pos} of {len}").unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Lines { bar }
    }

    /// One line, above the bar.
    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print::note(line)),
            None => print::note(line),
        }
    }

    /// Takes the bar away.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What was shown so far.
pub struct Progress {
    lines: Lines,
    stages: BTreeMap<String, StageState>,
    asked: Vec<String>,
    totals: happened::Totals,
    last: Option<(String, u32, Instant)>,
    command: String,
}

impl Progress {
    /// `command` is what steers this run: `selvedge runs VERB RUN`, without verb and run.
    pub fn new(lines: Lines, command: String) -> Progress {
        Progress { lines, stages: BTreeMap::new(), asked: Vec::new(), totals: happened::Totals::default(), last: None, command }
    }

    /// Shows what happened.
    pub fn happened(&self, happening: &Happening) {
        if matches!(happening, Happening::Retrying { .. } | Happening::TaskFailed { .. } | Happening::ApprovalDecided { .. } | Happening::Signal { .. }) {
            self.lines.line(&format!("  {}", happened::line(happening, &self.totals)));
        }
    }

    /// Shows where it stands.
    pub fn status(&mut self, status: &RunStatus) {
        for stage in &status.stages {
            self.totals.set(&stage.name, stage.total);
            if self.stages.insert(stage.name.clone(), stage.state) != Some(stage.state)
                && let Some(line) = of_stage(stage)
            {
                self.lines.line(&line);
            }
        }
        for waits in &status.waiting {
            self.waits(status, waits);
        }
        match status.stages.iter().filter(|stage| stage.state == StageState::Running).max_by_key(|stage| stage.total) {
            Some(stage) => self.far(stage),
            None => self.last = None,
        }
    }

    fn far(&mut self, stage: &StageStatus) {
        if let Some(bar) = &self.lines.bar {
            bar.set_message(stage.name.clone());
            bar.set_length(u64::from(stage.total));
            bar.set_position(u64::from(stage.done));
            return;
        }
        let now = Instant::now();
        match &self.last {
            Some((name, done, at)) if *name == stage.name && (now.duration_since(*at) < EVERY || *done == stage.done) => {}
            Some((name, ..)) if *name == stage.name => {
                self.lines.line(&format!("  {}: {} of {}", stage.name, stage.done, stage.total));
                self.last = Some((stage.name.clone(), stage.done, now));
            }
            _ => self.last = Some((stage.name.clone(), stage.done, now)),
        }
    }

    fn waits(&mut self, status: &RunStatus, waits: &Waiting) {
        let how = match waits {
            Waiting::Approval { assignees, .. } => match assignees.iter().find_map(|assignee| assignee.strip_prefix("user:")) {
                Some(user) => format!("`{} approve {} --by {user}`", self.command, status.id),
                None => format!("`{} approve {}`", self.command, status.id),
            },
            Waiting::Signal { name, .. } => format!("`{} signal {} {name}`", self.command, status.id),
            Waiting::Paused { .. } => format!("`{} resume {}`", self.command, status.id),
            Waiting::Timer { .. } => String::new(),
            _ => return,
        };
        let sentence = waits.sentence();
        if !self.asked.contains(&sentence) {
            let how = if how.is_empty() { how } else { format!("; from another terminal: {how}") };
            self.lines.line(&format!("  it waits {sentence}{how}"));
            self.asked.push(sentence);
        }
    }
}

fn of_stage(stage: &StageStatus) -> Option<String> {
    let error = stage.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let tasks = if stage.total > 1 { format!(" ({} tasks)", stage.total) } else { String::new() };
    match stage.state {
        StageState::Pending | StageState::Ready => None,
        StageState::Running if stage.done > 0 => Some(format!("  {} runs, {} of {} done", stage.name, stage.done, stage.total)),
        StageState::Running => Some(format!("  {} begins", stage.name)),
        StageState::Completed => Some(format!("✓ {}{tasks}", stage.name)),
        StageState::Skipped => Some(format!("- {} is not needed", stage.name)),
        StageState::Failed | StageState::Cancelled => Some(format!("✗ {} is {}{error}", stage.name, stage.state)),
    }
}
