//! What a shared handler is given: a consistent view of its actor, and nothing to write with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::id::ActorId;

/// What is asked of the state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Ask {
    Get(String),
    Keys(String),
    Entries(String),
}

#[derive(Default)]
pub(crate) struct ViewState {
    pub asked: Vec<Ask>,
    pub known: HashMap<Ask, Bytes>,
}

/// A consistent view of one actor.
#[derive(Clone)]
pub struct View {
    pub(crate) actor: Rc<ActorId>,
    pub(crate) context: Rc<AuthorizationContext>,
    pub(crate) state: Rc<RefCell<ViewState>>,
}

impl View {
    /// The key of the actor.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.actor.key
    }

    /// Who asks, for whom.
    #[must_use]
    pub fn caller(&self) -> &AuthorizationContext {
        &self.context
    }

    /// A state entry, tagged as [`crate::ctx::tag`] says.
    #[must_use]
    pub fn get(&self, name: &str) -> Look {
        self.look(Ask::Get(name.to_owned()))
    }

    /// The names under a prefix: a JSON list.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Look {
        self.look(Ask::Keys(prefix.to_owned()))
    }

    /// Names and values under a prefix: a JSON object.
    #[must_use]
    pub fn entries(&self, prefix: &str) -> Look {
        self.look(Ask::Entries(prefix.to_owned()))
    }

    fn look(&self, ask: Ask) -> Look {
        Look { state: self.state.clone(), ask }
    }
}

/// A read by a shared handler.
pub struct Look {
    state: Rc<RefCell<ViewState>>,
    ask: Ask,
}

impl Future for Look {
    type Output = Bytes;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Bytes> {
        let mut state = self.state.borrow_mut();
        match state.known.get(&self.ask).cloned() {
            Some(value) => Poll::Ready(value),
            None => {
                if !state.asked.contains(&self.ask) {
                    state.asked.push(self.ask.clone());
                }
                Poll::Pending
            }
        }
    }
}
