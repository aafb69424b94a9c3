//! Policies in the shadow: asked what those in force were asked, beside them. They decide nothing, and nobody waits for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use selvedge_kernel::auth::{Action, AuthorizationContext, Effect, Resource, Verdict, answer};
use selvedge_kernel::record::decision::{Asked, Said, What};
use selvedge_kernel::time::Millis;
use tokio::sync::mpsc;

use crate::wiring::{Rules, Wiring};

/// Questions that wait to be asked.
const WAITING: usize = 1_024;
/// Questions within a second: at a hundred microseconds each, the most that an answer which is not kept takes, a fifth of one core.
const A_SECOND: u64 = 2_000;

/// The way to the policies in the shadow.
pub(crate) struct Shadow {
    pub(crate) rules: Rules,
    questions: mpsc::Sender<Question>,
    /// The second that it is, and how many questions came in it.
    second: AtomicU64,
    came: AtomicU64,
}

/// What was asked, and what the policies in force have answered.
pub(crate) struct Question {
    context: AuthorizationContext,
    action: Action,
    resource: Resource,
    outcome: Effect,
    in_force: Said,
    now: Millis,
}

impl Shadow {
    pub(crate) fn new(rules: Rules) -> (Shadow, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(WAITING);
        (Shadow { rules, questions, second: AtomicU64::new(0), came: AtomicU64::new(0) }, receiver)
    }

    /// Whether there is time for one more in this second.
    fn has_time(&self, now: Millis) -> bool {
        let second = now.0 / 1_000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.came.store(0, Ordering::Relaxed);
        }
        self.came.fetch_add(1, Ordering::Relaxed) < A_SECOND
    }
}

/// Asks what is to be asked for as long as the engine is there.
pub(crate) async fn ask(wiring: Weak<Wiring>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let Some(wiring) = wiring.upgrade() else { return };
        wiring.ask_shadow(&question);
        drop(wiring);
        // Beside tasks, not before them.
        tokio::task::yield_now().await;
    }
}

impl Wiring {
    /// Hands a question on to the policies in the shadow, if there are any and they have time for it.
    pub(crate) fn compare(&self, asked: &Asked<'_>, verdict: &Verdict, now: Millis) {
        let Some(shadow) = &self.shadow else { return };
        // What stands above all policies decides in the same way whichever there are.
        if self.policies().revoked(asked.context).is_some() {
            return;
        }
        let handed = shadow.has_time(now).then(|| shadow.questions.try_reserve().ok()).flatten();
        match handed {
            Some(place) => place.send(Question {
                context: asked.context.clone(),
                action: asked.action,
                resource: asked.resource.clone(),
                outcome: verdict.outcome(),
                in_force: Said::of(verdict),
                now,
            }),
            None => {
                self.decisions.of(&asked.context.principal.tenant).shadow.passed_over.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn ask_shadow(&self, question: &Question) {
        let Some(shadow) = &self.shadow else { return };
        let Question { context, action, resource, outcome, in_force, now } = question;
        let of: Arc<crate::decisions::OfTenant> = self.decisions.of(&context.principal.tenant);
        let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        count(&of.shadow.asked);
        let policies = shadow.rules.policies();
        // Whatever happens there, it is no reason that anything here ends.
        let Ok(said) = catch_unwind(AssertUnwindSafe(|| answer(policies, context, *action, resource, *now))) else {
            count(&of.shadow.failed);
            return;
        };
        if !said.errors.is_empty() {
            count(&of.shadow.failed);
        }
        let what = match (outcome, said.outcome()) {
            (Effect::Deny, Effect::Allow) => What::WouldAllow,
            (Effect::Allow, Effect::Deny) => What::WouldDeny,
            _ => return,
        };
        count(if what == What::WouldAllow { &of.shadow.would_allow } else { &of.shadow.would_deny });
        self.record_difference(&Asked { context, action: *action, resource }, what, in_force.clone(), &said, *now);
    }
}
