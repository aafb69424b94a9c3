//! What happened to a run, in words.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use selvedge_kernel::pipeline::run::task_name;
use selvedge_kernel::record::run::{Event, Happening};
use selvedge_kernel::time::Millis;
use serde_json::Value;

/// How many tasks each stage has, as far as it was said.
#[derive(Default)]
pub struct Totals(BTreeMap<String, u32>);

impl Totals {
    /// Takes note of a stage.
    pub fn set(&mut self, stage: &str, tasks: u32) {
        self.0.insert(stage.to_owned(), tasks);
    }

    fn task(&self, stage: &str, item: u32) -> String {
        task_name(stage, item, self.0.get(stage).copied().unwrap_or_default())
    }
}

/// The lines of one event; those before it have said how many tasks there are.
pub fn lines(event: &Event, totals: &mut Totals) -> Vec<String> {
    event.progress.iter().for_each(|progress| totals.set(&progress.stage, progress.total));
    let mut lines: Vec<String> = event.happened.iter().map(|happening| line(happening, totals)).collect();
    if lines.is_empty() {
        lines.extend(
            event.progress.iter().map(|progress| format!("{}: {} of {} done, {} failed", progress.stage, progress.done, progress.total, progress.failed)),
        );
    }
    lines.into_iter().map(|line| format!("{}  {line}", event.at)).collect()
}

/// One event for programs; where something is stands under `status`.
pub fn json(number: u64, event: &Event) -> Value {
    fn renamed(value: &mut Value) {
        match value {
            Value::Object(entries) => {
                if let Some(state) = entries.remove("state") {
                    entries.insert("status".to_owned(), state);
                }
                entries.values_mut().for_each(renamed);
            }
            Value::Array(items) => items.iter_mut().for_each(renamed),
            _ => {}
        }
    }
    // An event is made of strings, numbers and lists: it has a JSON form.
    let mut shown = serde_json::to_value(event).unwrap_or_default();
    renamed(&mut shown);
    shown["number"] = number.into();
    shown["at"] = event.at.to_string().into();
    shown
}

/// One happening.
pub fn line(happening: &Happening, totals: &Totals) -> String {
    let because = |reason: &Option<String>| reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match happening {
        Happening::Run { state, reason } => format!("the run is {state}{}", because(reason)),
        Happening::Stage { stage, state, reason } => format!("{stage} is {state}{}", because(reason)),
        Happening::Retrying { stage, item, attempts, error, at } => {
            format!("{} failed {} and is tried again at {at}: {error}", totals.task(stage, *item), times(u64::from(*attempts)))
        }
        Happening::TaskFailed { stage, item, attempts, error } => {
            format!("{} failed {}, for good: {error}", totals.task(stage, *item), times(u64::from(*attempts)))
        }
        Happening::ApprovalOpened { stage, assignees, expires, .. } => format!("{stage} asks {} until {expires}", assignees.join(", ")),
        Happening::ApprovalDecided { stage, state, by, .. } => format!("{stage} is {state} by {by}"),
        Happening::Signal { name, stage: Some(stage) } => format!("the signal `{name}` came, {stage} took it"),
        Happening::Signal { name, stage: None } => format!("the signal `{name}` came and is kept"),
    }
}

/// `once`, `2 times`
pub fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// How long ago a time was.
pub fn age(at: &Value) -> String {
    at.as_u64().map_or_else(String::new, |at| span(now().since(Millis(at))))
}

/// What the clock on the wall shows.
pub fn now() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A span of time, as short as people say it.
pub fn span(span: Duration) -> String {
    match span.as_secs() {
        0..=9 => format!("{:.1} s", span.as_secs_f64()),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
