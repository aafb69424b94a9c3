//! What reaches a running task from its program: log lines, heartbeats, and the end.

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;
use tokio::sync::{mpsc, oneshot};

use super::bound::EVENTS;

/// Something that a program said about a task that still runs.
#[derive(Debug)]
enum Event {
    Log(String),
    Heartbeat(Bytes),
}

/// The end of a task, and how many events had no room.
#[derive(Debug)]
struct End {
    outcome: Result<Bytes, AttemptError>,
    left_out: u64,
}

/// The side of the program. Dropped without an end, the task ends with what the watcher says.
#[derive(Debug)]
pub struct Voice {
    events: mpsc::Sender<Event>,
    end: oneshot::Sender<End>,
    left_out: u64,
}

/// The side of the task.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    end: oneshot::Receiver<End>,
}

/// The two sides of one running task.
#[must_use]
pub fn pair() -> (Voice, Watch) {
    let (events, heard) = mpsc::channel(EVENTS);
    let (end, ended) = oneshot::channel();
    (Voice { events, end, left_out: 0 }, Watch { events: heard, end: ended })
}

impl Voice {
    /// A line for the log; left out and counted where nobody listens fast enough.
    pub fn log(&mut self, line: String) {
        self.say(Event::Log(line));
    }

    /// A sign of life.
    pub fn heartbeat(&mut self, progress: Bytes) {
        self.say(Event::Heartbeat(progress));
    }

    fn say(&mut self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.left_out += 1;
        }
    }

    /// The end.
    pub fn end(self, outcome: Result<Bytes, AttemptError>) {
        let _ = self.end.send(End { outcome, left_out: self.left_out });
    }
}

impl Watch {
    /// Hands on what is said until the end comes; `None` if the program's side went away without one.
    pub async fn follow(mut self, heartbeat: impl Fn(Bytes) + Send, log: impl Fn(String) + Send) -> Option<Result<Bytes, AttemptError>> {
        // The voice is gone with the end, so that the events run out first and none is lost.
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Log(line) => log(line),
                Event::Heartbeat(progress) => heartbeat(progress),
            }
        }
        let end = self.end.await.ok()?;
        if end.left_out > 0 {
            log(format!("({} more lines came too fast and were left out)", end.left_out));
        }
        Some(end.outcome)
    }
}
