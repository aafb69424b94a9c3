//! Streams: what happens to a run, and what an invocation emits, as server-sent events or a JSON value a line.
//!
//! A stream is read from what is durable, a page at a time, when its client has taken the page before: nothing piles up for one
//! that is slow. One that leaves a page untaken for too long is told where to go on, and let go: its connection serves somebody
//! else. Before each page the credential is looked at again and a new permit is taken.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use selvedge_engine::Progress;
use selvedge_engine::desk::{Problem, Runs, of_bytes, value};
use selvedge_kernel::limit::HTTP_HEARTBEAT_MS;
use selvedge_kernel::record::message::Outcome;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::take::{Accept, Said};

/// The shortest and the longest time between two looks at what an invocation has emitted.
const GLANCES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(HTTP_HEARTBEAT_MS);

/// How frames are written.
#[derive(Clone, Copy)]
enum Form {
    Events,
    Lines,
}

/// What a reader meets: its number, if a reader can go on behind it, what it is, and what it says.
struct Frame {
    id: Option<u64>,
    event: &'static str,
    data: Value,
}

impl Form {
    fn of(said: &Said) -> Form {
        if said.accept == Accept::Lines { Form::Lines } else { Form::Events }
    }

    fn media(self) -> &'static str {
        match self {
            Form::Events => "text/event-stream",
            Form::Lines => "application/x-ndjson",
        }
    }

    fn page(self, frames: &[Frame]) -> Bytes {
        let mut text = String::new();
        for Frame { id, event, data } in frames {
            match self {
                Form::Events => {
                    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
                    // JSON has no line end in it.
                    text.push_str(&format!("{id}event: {event}\ndata: {data}\n\n"));
                }
                Form::Lines => text.push_str(&format!("{}\n", json!({ "id": id, "event": event, "data": data }))),
            }
        }
        Bytes::from(text)
    }

    fn heartbeat(self) -> Bytes {
        Bytes::from_static(match self {
            Form::Events => b": alive\n\n",
            Form::Lines => b"\n",
        })
    }
}

/// What a reader is given next.
enum Next {
    Frames(Vec<Frame>),
    /// Nothing new, and it still may be read.
    Alive,
    /// Nothing comes any more, but for these.
    Last(Vec<Frame>),
}

/// Something that can be followed.
enum Followed {
    Run { id: String, next: u64 },
    Invocation { id: String, next: u64, started: bool },
}

/// What happens to a run.
pub(crate) fn run(caller: Caller, id: String, said: &Said) -> Response {
    respond(caller, Followed::Run { id, next: said.after.map_or(0, |after| after + 1) }, Form::of(said))
}

/// What an invocation emits.
pub(crate) fn invocation(caller: Caller, id: String, said: &Said) -> Response {
    let next = said.after.map_or(0, |after| after + 1);
    respond(caller, Followed::Invocation { id, next, started: said.after.is_some() }, Form::of(said))
}

/// Who follows what, and since when the page before waits to be taken.
struct Reader {
    caller: Caller,
    followed: Followed,
    given: Instant,
}

fn respond(caller: Caller, followed: Followed, form: Form) -> Response {
    let first = Reader { caller, followed, given: Instant::now() };
    let pages = stream::unfold(Some(first), move |reader| async move {
        let Reader { mut caller, mut followed, given } = reader?;
        let late = given.elapsed() > caller.door.slow_after;
        let next = if late { Ok(Next::Last(vec![followed.slow()])) } else { followed.next(&caller).await };
        // It may have waited for long: who reads is asked again before the reader gets it.
        let next = match caller.again().await {
            Ok(()) => next.map_err(Refusal::from),
            Err(refused) => Err(refused),
        };
        let (page, goes_on) = match next {
            Ok(Next::Frames(frames)) => (form.page(&frames), true),
            Ok(Next::Alive) => (form.heartbeat(), true),
            Ok(Next::Last(frames)) => (form.page(&frames), false),
            Err(Refusal(problem)) => {
                let data = json!({ "code": problem.code, "message": problem.message });
                (form.page(&[Frame { id: None, event: "refused", data }]), false)
            }
        };
        Some((Ok::<_, Infallible>(page), goes_on.then(|| Reader { caller, followed, given: Instant::now() })))
    });
    ([(header::CONTENT_TYPE, form.media()), (header::CACHE_CONTROL, "no-store")], Body::from_stream(pages)).into_response()
}

impl Followed {
    /// What a client is told that has taken its page too slowly: where to go on, when it can.
    fn slow(&self) -> Frame {
        let (Followed::Run { next, .. } | Followed::Invocation { next, .. }) = self;
        let message = "this client takes its events too slowly and is let go: go on behind the last one, with `Last-Event-ID`";
        Frame { id: None, event: "slow", data: json!({ "message": message, "last_event_id": next.checked_sub(1) }) }
    }

    async fn next(&mut self, caller: &Caller) -> Result<Next, Problem> {
        let (mut closing, mut versions) = (caller.door.closing.clone(), caller.door.versions.clone());
        // The permit of the page is taken after this: no change falls between the two.
        versions.borrow_and_update();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Ok(Next::Last(vec![Frame { id: None, event: "closing", data: json!({ "message": "the server stops: go on behind the last event, with `Last-Event-ID`" }) }])),
            next = self.page(caller) => next,
            // Policies or keys have changed: who reads is asked again.
            Ok(()) = versions.changed() => Ok(Next::Alive),
            () = tokio::time::sleep(HEARTBEAT) => Ok(Next::Alive),
        }
    }

    async fn page(&mut self, caller: &Caller) -> Result<Next, Problem> {
        match self {
            Followed::Run { id, next } => happened(caller, id, next).await,
            Followed::Invocation { id, next, started } => emitted(caller, id, next, started).await,
        }
    }
}

async fn happened(caller: &Caller, id: &str, next: &mut u64) -> Result<Next, Problem> {
    let runs = Runs(caller.asker());
    let events = runs.events(id, *next).await?;
    let Some((last, _)) = events.last() else {
        let status = runs.status(id).await?;
        return Ok(Next::Last(vec![Frame { id: None, event: "ended", data: json!({ "status": status.state, "error": status.error }) }]));
    };
    *next = last + 1;
    let frames: Result<Vec<Frame>, Problem> =
        events.iter().map(|(number, event)| Ok(Frame { id: Some(*number), event: "happened", data: value(event)? })).collect();
    Ok(Next::Frames(frames?))
}

async fn emitted(caller: &Caller, id: &str, next: &mut u64, started: &mut bool) -> Result<Next, Problem> {
    let asker = caller.asker();
    let mut pause = GLANCES.0;
    loop {
        // Asked before the chunks are read: what it emitted last is there once it has ended.
        let progress = asker.progress(id).await?;
        let chunks = asker.output(id, *next).await?;
        let mut frames = Vec::new();
        let ended = matches!(progress, Progress::Ended(_));
        if !*started && (ended || !chunks.is_empty() || asker.has_started(id).await?) {
            *started = true;
            frames.push(Frame { id: None, event: "start", data: json!({ "type": "start", "id": id }) });
        }
        if let Some((last, _)) = chunks.last() {
            *next = last + 1;
        }
        let data = |(position, chunk): &(u64, Bytes)| json!({ "type": "data", "position": position, "chunk": of_bytes(chunk) });
        frames.extend(chunks.iter().map(|chunk| Frame { id: Some(chunk.0), event: "data", data: data(chunk) }));
        match progress {
            Progress::Ended(outcome) if chunks.is_empty() => {
                frames.push(match outcome {
                    Outcome::Value(result) => Frame { id: None, event: "complete", data: json!({ "type": "complete", "result": of_bytes(&result) }) },
                    Outcome::Error(error) => Frame { id: None, event: "error", data: json!({ "type": "error", "code": error.code, "message": error.message }) },
                });
                return Ok(Next::Last(frames));
            }
            _ if !frames.is_empty() => return Ok(Next::Frames(frames)),
            _ => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(GLANCES.1);
            }
        }
    }
}
