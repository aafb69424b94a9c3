//! The log of a process: lines on standard error, for people or for programs.
//!
//! A line is ids, names, codes and numbers. No key, no secret, no payload and no words of the work itself have a place in it.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use selvedge_kernel::config::{Level, LogFormat};
use selvedge_kernel::time::Millis;
use serde_json::{Map, Value};

/// Lines that wait to be written. Those beyond are counted and left out: nobody waits for a terminal that stands still.
const WAITING: usize = 10_000;
/// How long an end waits for what is not written yet.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What happened, as a line says it.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// How severe it is.
    pub level: Level,
    /// What happened, in a word that stays the same.
    pub event: &'static str,
    /// What happened, in a sentence.
    pub message: &'a str,
    /// Ids, names, codes and numbers.
    pub fields: Vec<(&'static str, Value)>,
}

/// Where lines go. A clone writes to the same place.
#[derive(Clone)]
pub struct Log {
    level: Level,
    format: LogFormat,
    waiting: SyncSender<Waiting>,
    lost: Arc<AtomicU64>,
}

impl fmt::Debug for Log {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Log({:?})", self.level)
    }
}

enum Waiting {
    Line(String),
    Flush(SyncSender<()>),
}

impl Log {
    /// A log that a thread of its own writes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to(out: impl Write + Send + 'static, level: Level, format: LogFormat) -> std::io::Result<Log> {
        let (waiting, taken) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new().name("selvedge-log".to_owned()).spawn(move || write(out, &taken, &counted, format))?;
        Ok(Log { level, format, waiting, lost })
    }

    /// Whether lines of this level are written.
    #[must_use]
    pub fn takes(&self, level: Level) -> bool {
        level <= self.level
    }

    /// How its lines look.
    #[must_use]
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Writes a line, unless it is less severe than what is written.
    pub fn write(&self, line: &Line<'_>) {
        if self.takes(line.level) && self.waiting.try_send(Waiting::Line(shown(self.format, now(), line))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same, with the parts as they come.
    pub fn say(&self, level: Level, event: &'static str, message: &str, fields: Vec<(&'static str, Value)>) {
        self.write(&Line { level, event, message, fields });
    }

    /// Waits until what was said so far is written, or for a second.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.waiting.try_send(Waiting::Flush(done)).is_ok() {
            // A standard error that stands still keeps nobody from ending.
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

/// Says it to a log, or to whoever sits in front of the process where there is none.
#[cfg(any(feature = "cedar", feature = "server"))]
pub(crate) fn said(log: Option<&Log>, level: Level, event: &'static str, message: &str) {
    match log {
        Some(log) => log.say(level, event, message, Vec::new()),
        None => eprintln!("selvedge: {message}"),
    }
}

fn write(mut out: impl Write, taken: &Receiver<Waiting>, lost: &AtomicU64, format: LogFormat) {
    for waiting in taken {
        let left_out = lost.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let message = "lines were left out: standard error took them too slowly";
            let line = Line { level: Level::Warn, event: "lines_left_out", message, fields: vec![("lines", left_out.into())] };
            let _ = out.write_all(shown(format, now(), &line).as_bytes());
        }
        match waiting {
            // Nobody reads any more: there is nobody to tell.
            Waiting::Line(line) => drop(out.write_all(line.as_bytes())),
            Waiting::Flush(done) => drop(done.send(())),
        }
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A line with its end. Whatever a name holds, it stays one line.
fn shown(format: LogFormat, at: Millis, line: &Line<'_>) -> String {
    let Line { level, event, message, fields } = line;
    match format {
        LogFormat::Json => {
            let own = [("time", at.to_string().into()), ("level", word(*level).into()), ("event", (*event).into()), ("message", (*message).into())];
            let all = own.into_iter().chain(fields.iter().cloned()).filter(|(_, value)| !value.is_null());
            let object: Map<String, Value> = all.map(|(name, value)| (name.to_owned(), value)).collect();
            format!("{}\n", Value::Object(object))
        }
        LogFormat::Human => {
            let mut text = format!("{at} {:5} {}", word(*level), flat(message));
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                // Writing to a string cannot fail.
                let _ = write!(text, " {name}={}", flat(&value));
            }
            text.push('\n');
            text
        }
    }
}

/// Without what would begin a line, or steer a terminal.
fn flat(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect::<String>().replace('\n', "\n    ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Held(Arc<Mutex<Vec<u8>>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_or_one_sentence_with_what_is_there() {
        let fields = vec![("run", json!("run_1")), ("code", Value::Null), ("took_ms", json!(5))];
        let line = Line { level: Level::Warn, event: "run_ended", message: "a run has failed", fields };
        let json: Value = serde_json::from_str(&shown(LogFormat::Json, Millis(0), &line)).unwrap();
        let expected =
            json!({"time": Millis(0).to_string(), "level": "warn", "event": "run_ended", "message": "a run has failed", "run": "run_1", "took_ms": 5});
        assert_eq!(json, expected);
        assert_eq!(shown(LogFormat::Human, Millis(0), &line), format!("{} warn  a run has failed run=run_1 took_ms=5\n", Millis(0)));
    }

    #[test]
    fn a_name_begins_no_line_of_its_own_and_steers_no_terminal() {
        let line = Line { level: Level::Info, event: "x", message: "m", fields: vec![("actor", json!("a\r\u{1b}[2Jb"))] };
        assert!(shown(LogFormat::Human, Millis(0), &line).ends_with("actor=a\u{fffd}\u{fffd}[2Jb\n"));
        let line = Line { fields: vec![("actor", json!("a\n2026 error forged"))], ..line };
        assert_eq!(shown(LogFormat::Json, Millis(0), &line).lines().count(), 1);
        assert!(shown(LogFormat::Human, Millis(0), &line).contains("a\n    2026 error forged"));
    }

    #[test]
    fn what_is_less_severe_is_left_out_and_a_flush_waits_for_the_rest() {
        let held = Held::default();
        let log = Log::to(held.clone(), Level::Warn, LogFormat::Human).unwrap();
        log.say(Level::Info, "a", "not this", Vec::new());
        log.say(Level::Error, "b", "but this", Vec::new());
        log.flush();
        let text = String::from_utf8(held.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("but this") && !text.contains("not this"), "{text}");
    }
}
