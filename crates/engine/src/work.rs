//! Tasks that workers of other processes take: offered here until one asks for them, then its own under a lease.
//!
//! An offer is an attempt that has begun: it is in memory only, since an attempt that a process did not live to see the end of
//! begins again under the same key. So a lease of an earlier process is none, and who reports under it is told so.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, AuthorizationContext, Permit, Resource};
use selvedge_kernel::error::{AttemptError, Consequence, WorkError};
use selvedge_kernel::limit;
use selvedge_kernel::ports::Boxed;
use tokio::sync::Notify;

use crate::door::{check_body, check_part, expect_action, misused};
use crate::engine::Engine;
use crate::exec::ExecTask;
use crate::shard::VerbError;
use crate::tasks::Owner;

/// Whose tasks: a tenant, and an activity.
type Line = (String, String);

/// What the attempts of this process that are a worker's work stand at.
#[derive(Default)]
pub(crate) struct Offers {
    inner: Mutex<Inner>,
    /// Something was offered.
    offered: Notify,
    /// The end of a report is known.
    reported: Notify,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// What nobody has taken yet, in the order in which it was offered.
    waiting: BTreeMap<Line, BTreeSet<u64>>,
    offers: HashMap<u64, Offer>,
    /// By the name under which a worker has it.
    leased: HashMap<String, u64>,
    /// Reports under their names, the latest ones: the same report again is answered the same.
    reports: HashMap<String, Report>,
    /// Their names, in the order in which they came.
    order: VecDeque<String>,
}

/// What a worker said the end of its task was.
#[derive(Clone, Debug)]
struct Report {
    line: Line,
    said: [u8; 32],
    written: bool,
}

/// Is told when the end of an attempt is written; dropped before, that end counts for nothing. It needs nobody who waits for it.
pub(crate) struct Told {
    offers: Arc<Offers>,
    name: String,
    written: bool,
}

impl Told {
    /// The end of the attempt is durable.
    pub(crate) fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut inner = self.offers.lock();
        if let Some(report) = inner.reports.get_mut(&self.name).filter(|_| self.written) {
            report.written = true;
        } else {
            inner.reports.remove(&self.name);
        }
        drop(inner);
        self.offers.reported.notify_waiters();
    }
}

struct Offer {
    owner: Owner,
    line: Line,
    task: ExecTask,
    asker: Option<AuthorizationContext>,
    lease: Duration,
    /// Under which name a worker has it; none while it waits.
    name: Option<String>,
    tell: tokio::sync::mpsc::UnboundedSender<Said>,
    progress: Arc<dyn Fn(Bytes) + Send + Sync>,
}

/// What happens to an offer.
enum Said {
    /// Whoever asked for it may not any more: no worker gets it.
    Refused(WorkError),
    Taken,
    Lives,
    Ended(Result<Bytes, AttemptError>, Told),
}

/// What a worker is offered.
pub(crate) struct Offering {
    pub owner: Owner,
    pub tenant: String,
    pub task: ExecTask,
    /// Who asked for it: looked at again when a worker takes it.
    pub asker: Option<AuthorizationContext>,
    /// How long it is a worker's without a sign of life.
    pub lease: Duration,
    /// How long an attempt may take from when a worker has it.
    pub time: Option<Duration>,
    pub progress: Arc<dyn Fn(Bytes) + Send + Sync>,
}

/// Tasks that a worker asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// At most so many, 1 to [`limit::LEASED_AT_ONCE`].
    pub most: usize,
    /// How long to wait for the first one, at most [`limit::LEASE_WAIT`].
    pub wait: Duration,
}

/// A task that a worker has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leased {
    /// What it is called in every report: this lease of this attempt, and no other.
    pub name: String,
    /// The activity.
    pub activity: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The idempotency key of the effect: the same for each attempt.
    pub key: String,
    /// JSON.
    pub input: Bytes,
    /// A heartbeat is due within this time, each time.
    pub lease: Duration,
    /// How long the attempt may take altogether.
    pub time: Option<Duration>,
    /// The trace that it is a part of, as W3C writes it.
    pub trace: Option<String>,
}

impl Offers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody's tasks that nobody has taken, and the activity of each.
    pub(crate) fn untaken(&self, whose: impl Fn(Owner) -> bool) -> Vec<(Owner, String)> {
        let inner = self.lock();
        let waiting = inner.waiting.values().flatten().filter_map(|number| inner.offers.get(number));
        waiting.filter(|offer| whose(offer.owner)).map(|offer| (offer.owner, offer.line.1.clone())).collect()
    }

    /// How many tasks nobody has taken, and how many workers have.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.waiting.values().map(BTreeSet::len).sum(), inner.leased.len())
    }

    /// Offers an attempt until a worker has ended it; dropped, it is taken back, and its worker is told with its next report.
    pub(crate) async fn run(self: Arc<Offers>, offering: Offering) -> (Result<Bytes, AttemptError>, Option<Told>) {
        let Offering { owner, tenant, task, asker, lease, time, progress } = offering;
        let (tell, mut said) = tokio::sync::mpsc::unbounded_channel();
        let line = (tenant, task.activity.clone());
        let number = {
            let mut inner = self.lock();
            inner.next += 1;
            let number = inner.next;
            inner.waiting.entry(line.clone()).or_default().insert(number);
            let task = ExecTask { deadline_ms: time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)), ..task };
            inner.offers.insert(number, Offer { owner, line, task, asker, lease, name: None, tell, progress });
            number
        };
        let _held = Held { offers: self.clone(), number };
        self.offered.notify_waiters();
        let mut taken = false;
        let mut late: Boxed<'_, ()> = Box::pin(std::future::pending());
        loop {
            let silent = async { if taken { tokio::time::sleep(lease).await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                heard = said.recv() => match heard {
                    Some(Said::Taken) => {
                        taken = true;
                        if let Some(time) = time {
                            late = Box::pin(tokio::time::sleep(time));
                        }
                    }
                    Some(Said::Lives) => {}
                    Some(Said::Refused(error)) => return (Err(AttemptError { error, retryable: false, retry_after_ms: None }), None),
                    Some(Said::Ended(result, told)) => return (result, Some(told)),
                    None => return (Err(passing(WorkError::new("closed", "the engine is closing"))), None),
                },
                () = &mut late => return (Err(passing(WorkError::new("timeout", "the attempt was given up when its time was up"))), None),
                () = silent => {
                    let text = format!("its worker gave no sign of life for {} s: its lease is over, another worker can have it", lease.as_secs_f64());
                    return (Err(passing(WorkError::new("lease_expired", text))), None);
                }
            }
        }
    }

    /// Takes what waits in a line, but for what `refused` has an error for.
    fn take(&self, line: &Line, most: usize, refused: impl Fn(&AuthorizationContext) -> Option<WorkError>, mut draw: impl FnMut() -> [u8; 16]) -> Vec<Leased> {
        let mut inner = self.lock();
        let mut leased = Vec::new();
        while leased.len() < most {
            let Some(number) = inner.waiting.get_mut(line).and_then(BTreeSet::pop_first) else { break };
            let name = format!("{}~{}", line.1, data_encoding::HEXLOWER.encode(&draw()));
            let Some(offer) = inner.offers.get_mut(&number) else { continue };
            if let Some(error) = offer.asker.as_ref().and_then(&refused) {
                // An error: nobody waits for it any more.
                let _ = offer.tell.send(Said::Refused(error));
                continue;
            }
            if offer.tell.send(Said::Taken).is_err() {
                continue;
            }
            offer.name = Some(name.clone());
            leased.push(Leased {
                name: name.clone(),
                activity: offer.task.activity.clone(),
                attempt: offer.task.attempt,
                key: offer.task.key.clone(),
                input: offer.task.input.clone(),
                lease: offer.lease,
                time: offer.task.deadline_ms.map(Duration::from_millis),
                trace: offer.task.trace.clone(),
            });
            inner.leased.insert(name, number);
        }
        if inner.waiting.get(line).is_some_and(BTreeSet::is_empty) {
            inner.waiting.remove(line);
        }
        leased
    }

    /// A sign of life; false if the task is not the worker's any more.
    fn lives(&self, line: &Line, name: &str, progress: Option<Bytes>) -> bool {
        let inner = self.lock();
        let Some(offer) = inner.leased.get(name).and_then(|number| inner.offers.get(number)).filter(|offer| offer.line == *line) else { return false };
        if let Some(progress) = progress {
            (offer.progress)(progress);
        }
        offer.tell.send(Said::Lives).is_ok()
    }

    /// Takes the end of an attempt, if the task is the worker's.
    fn end(self: &Arc<Offers>, line: &Line, name: &str, said: [u8; 32], result: Result<Bytes, AttemptError>) {
        let mut inner = self.lock();
        let Some(number) = inner.leased.get(name).copied() else { return };
        if inner.offers.get(&number).is_none_or(|offer| offer.line != *line) {
            return;
        }
        inner.leased.remove(name);
        let Some(offer) = inner.offers.remove(&number) else { return };
        inner.reports.insert(name.to_owned(), Report { line: line.clone(), said, written: false });
        inner.order.push_back(name.to_owned());
        while inner.order.len() > limit::REPORTS_KEPT {
            if let Some(oldest) = inner.order.pop_front() {
                inner.reports.remove(&oldest);
            }
        }
        // What is told takes the lock.
        drop(inner);
        let told = Told { offers: self.clone(), name: name.to_owned(), written: false };
        // An attempt that has been given up drops it: then the report counts for nothing.
        let _ = offer.tell.send(Said::Ended(result, told));
    }

    /// What was reported under a name, if it counts.
    fn report(&self, line: &Line, name: &str) -> Option<Report> {
        self.lock().reports.get(name).filter(|report| report.line == *line).cloned()
    }
}

/// An offer, for as long as whoever made it waits.
struct Held {
    offers: Arc<Offers>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.offers.lock();
        let Some(offer) = inner.offers.remove(&self.number) else { return };
        if let Some(name) = &offer.name {
            inner.leased.remove(name);
        }
        if let Some(waiting) = inner.waiting.get_mut(&offer.line) {
            waiting.remove(&self.number);
            if waiting.is_empty() {
                inner.waiting.remove(&offer.line);
            }
        }
    }
}

fn passing(error: WorkError) -> AttemptError {
    AttemptError { error, retryable: true, retry_after_ms: None }
}

/// What the name of a leased task says it is: the activity that it was leased for.
#[must_use]
pub fn activity_of(name: &str) -> Option<&str> {
    name.rsplit_once('~').map(|(activity, _)| activity)
}

fn lost(name: &str) -> VerbError {
    let text = format!(
        "`{name}` is not your task any more: its lease or its time was over, it was cancelled, or this process was started again. \
         Drop what you did; whoever has it now has the same idempotency key"
    );
    VerbError::new(Consequence::Conflict, "lease_lost", text)
}

impl Engine {
    /// Gives tasks of an activity to a worker, waiting for the first one if none is there. None in time is no error.
    ///
    /// # Errors
    /// A permit for something else; numbers out of their bounds.
    pub async fn lease(&self, permit: Permit, lease: Lease) -> Result<Vec<Leased>, VerbError> {
        let line = worked(&permit)?;
        check_part("the activity", &line.1)?;
        if lease.most == 0 || lease.most > limit::LEASED_AT_ONCE {
            let text = format!("`max` is {}, and a worker takes 1 to {} tasks at once", lease.most, limit::LEASED_AT_ONCE);
            return Err(VerbError::new(Consequence::FixInput, "limit: leased", text));
        }
        if lease.wait > limit::LEASE_WAIT {
            let text = format!("a worker waits {} s at most for a task, not {} s: ask again after that", limit::LEASE_WAIT.as_secs(), lease.wait.as_secs());
            return Err(VerbError::new(Consequence::FixInput, "limit: lease_wait", text));
        }
        tokio::time::timeout(lease.wait, self.leased(&line, lease.most)).await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    async fn leased(&self, line: &Line, most: usize) -> Result<Vec<Leased>, VerbError> {
        let offers = &self.wiring.offers;
        loop {
            let offered = offers.offered.notified();
            tokio::pin!(offered);
            // Before the look: what is offered in between wakes it.
            offered.as_mut().enable();
            if let Some(reason) = self.stopped() {
                return Err(VerbError::new(Consequence::Stop, "stopped", reason));
            }
            let refused = |asker: &AuthorizationContext| self.wiring.revoked(asker, &line.1);
            let leased = offers.take(line, most, refused, || {
                let mut drawn = [0; 16];
                (self.wiring.env.random)(&mut drawn);
                drawn
            });
            if !leased.is_empty() {
                return Ok(leased);
            }
            offered.await;
        }
    }

    /// Says that a worker is at its task: it has it for another lease's time.
    ///
    /// # Errors
    /// `lease_lost`: it is not its task any more, and it should stop.
    pub async fn lives(&self, permit: Permit, name: &str, progress: Option<Bytes>) -> Result<(), VerbError> {
        let line = worked(&permit)?;
        if progress.as_ref().is_some_and(|progress| progress.len() > limit::INLINE_BYTES) {
            let text = format!("the progress is larger than {} bytes: say less", limit::INLINE_BYTES);
            return Err(VerbError::new(Consequence::Limit, "limit: progress", text));
        }
        if self.wiring.offers.lives(&line, name, progress) { Ok(()) } else { Err(lost(name)) }
    }

    /// Ends a task with its JSON or its error. Written when this returns; the same report again is answered the same.
    ///
    /// # Errors
    /// `lease_lost`: it is not its task any more, and nothing of the report counts; a value that is too large.
    pub async fn report(&self, permit: Permit, name: &str, result: Result<Bytes, AttemptError>) -> Result<(), VerbError> {
        let line = worked(&permit)?;
        if let Ok(value) = &result {
            check_body(self.limits(), value.len())?;
        }
        let said = digest(&result);
        let offers = &self.wiring.offers;
        offers.end(&line, name, said, result);
        loop {
            let reported = offers.reported.notified();
            tokio::pin!(reported);
            // Before the look: what is written in between wakes it.
            reported.as_mut().enable();
            match offers.report(&line, name) {
                None => match self.stopped() {
                    Some(reason) => return Err(VerbError::new(Consequence::Stop, "stopped", reason)),
                    None => return Err(lost(name)),
                },
                Some(earlier) if earlier.said != said => {
                    let text = format!("`{name}` has ended with another report, which is written: this one counts for nothing");
                    return Err(VerbError::new(Consequence::Conflict, "reported", text));
                }
                Some(earlier) if earlier.written => return Ok(()),
                Some(_) => {}
            }
            // It waits as long as the store takes; whoever counts for nothing any more is told so at once.
            reported.await;
        }
    }
}

/// The line that a permit to work is for.
fn worked(permit: &Permit) -> Result<Line, VerbError> {
    expect_action(permit, Action::Work)?;
    match permit.resource() {
        Resource::Activity { tenant, name } => Ok((tenant.clone(), name.clone())),
        _ => Err(misused(permit)),
    }
}

fn digest(result: &Result<Bytes, AttemptError>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    match result {
        Ok(value) => hasher.update(b"done").update(value),
        Err(AttemptError { error, retryable, retry_after_ms }) => {
            let after = retry_after_ms.unwrap_or(u64::MAX).to_be_bytes();
            hasher.update(b"failed").update(&[u8::from(*retryable)]).update(&after).update(error.code.as_bytes()).update(&[0]).update(error.message.as_bytes())
        }
    };
    *hasher.finalize().as_bytes()
}
