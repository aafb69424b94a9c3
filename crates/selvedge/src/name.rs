//! Typed constants: the same value registers a handler, calls it from a handler, and calls it from a client.

use std::marker::PhantomData;

/// An exclusive handler of an actor type.
///
/// ```
/// use selvedge::Handler;
/// const PLACE: Handler<String, u64> = Handler::new("order", "place");
/// assert_eq!(PLACE.on("o-1").key(), "o-1");
/// ```
pub struct Handler<I, O> {
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    of: PhantomData<fn(I) -> O>,
}

/// A shared handler of an actor type: concurrent, reads only.
///
/// ```
/// use selvedge::SharedHandler;
/// const TOTAL: SharedHandler<(), u64> = SharedHandler::new("customer", "total");
/// assert_eq!(TOTAL.on("ada").key(), "ada");
/// ```
pub struct SharedHandler<I, O> {
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    of: PhantomData<fn(I) -> O>,
}

/// A named activity.
///
/// ```
/// use selvedge::Activity;
/// const MAIL: Activity<String, ()> = Activity::new("mail");
/// assert_eq!(MAIL.name(), "mail");
/// ```
pub struct Activity<I, O> {
    pub(crate) name: &'static str,
    of: PhantomData<fn(I) -> O>,
}

/// A signal by name.
///
/// ```
/// use selvedge::Signal;
/// const PAID: Signal<u64> = Signal::new("paid");
/// assert_eq!(PAID.name(), "paid");
/// ```
pub struct Signal<T> {
    pub(crate) name: &'static str,
    of: PhantomData<fn() -> T>,
}

/// A handler of one actor.
pub struct Target<I, O> {
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    pub(crate) key: String,
    of: PhantomData<fn(I) -> O>,
}

impl<I, O> Target<I, O> {
    /// The key of the actor.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl<I, O> Handler<I, O> {
    /// Names a handler of an actor type.
    #[must_use]
    pub const fn new(kind: &'static str, name: &'static str) -> Self {
        Handler { kind, name, version: 1, of: PhantomData }
    }

    /// This handler in a version, to be registered beside older ones: the newest accepts messages, the others finish
    /// what they have accepted. A handler without one is version 1.
    ///
    /// ```
    /// use selvedge::{App, Ctx, Handler};
    /// const PLACE: Handler<u64, u64> = Handler::new("order", "place");
    /// let app = App::new()
    ///     .handler(PLACE, async |_: Ctx, cents| Ok(cents))
    ///     .handler(PLACE.version(2), async |_: Ctx, cents| Ok(cents + 1));
    /// # let _ = app;
    /// ```
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// This handler of the actor with that key.
    #[must_use]
    pub fn on(self, key: impl Into<String>) -> Target<I, O> {
        Target { kind: self.kind, name: self.name, key: key.into(), of: PhantomData }
    }
}

impl<I, O> SharedHandler<I, O> {
    /// Names a shared handler of an actor type.
    #[must_use]
    pub const fn new(kind: &'static str, name: &'static str) -> Self {
        SharedHandler { kind, name, of: PhantomData }
    }

    /// This handler of the actor with that key.
    #[must_use]
    pub fn on(self, key: impl Into<String>) -> Target<I, O> {
        Target { kind: self.kind, name: self.name, key: key.into(), of: PhantomData }
    }
}

impl<I, O> Activity<I, O> {
    /// Names an activity.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Activity { name, of: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Signal<T> {
    /// Names a signal.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Signal { name, of: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}
