//! The named entries of an actor's state: for a handler that writes them, and for one that only reads.

use std::collections::BTreeMap;

use selvedge_engine::ctx as raw;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Outcome, from_work};
use crate::json;

/// The named entries of an actor's state.
#[derive(Clone)]
pub struct State {
    raw: raw::Ctx,
}

impl State {
    pub(crate) fn new(raw: raw::Ctx) -> State {
        State { raw }
    }

    /// The value of a name: as it was when the invocation started, or as it wrote it.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Outcome<Option<T>> {
        let tagged = self.raw.state_get(name).await.map_err(from_work)?;
        raw::untag(&tagged).map(|value| json::read("a state entry", &value)).transpose()
    }

    /// Whether a name has a value.
    pub async fn has(&self, name: &str) -> Outcome<bool> {
        let tagged = self.raw.state_get(name).await.map_err(from_work)?;
        Ok(raw::untag(&tagged).is_some())
    }

    /// Writes a value; it joins the next commit.
    pub fn set<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Outcome<()> {
        self.raw.state_set(name, json::write("a state entry", value)?).map_err(from_work)
    }

    /// Removes a value.
    pub fn delete(&self, name: &str) -> Outcome<()> {
        self.raw.state_delete(name).map_err(from_work)
    }

    /// Removes all values.
    pub fn clear(&self) -> Outcome<()> {
        self.raw.state_clear().map_err(from_work)
    }

    /// The names under a prefix, in order.
    pub async fn keys(&self, prefix: &str) -> Outcome<Vec<String>> {
        json::read("the names of a state", &self.raw.state_keys(prefix).await.map_err(from_work)?)
    }

    /// Names and values under a prefix, in order.
    pub async fn entries<T: DeserializeOwned>(&self, prefix: &str) -> Outcome<BTreeMap<String, T>> {
        json::read("a state", &self.raw.state_entries(prefix).await.map_err(from_work)?)
    }
}

/// What a shared handler is given: it reads, and cannot write.
#[derive(Clone)]
pub struct View {
    raw: selvedge_engine::view::View,
}

impl View {
    pub(crate) fn new(raw: selvedge_engine::view::View) -> View {
        View { raw }
    }

    /// The key of the actor.
    #[must_use]
    pub fn key(&self) -> &str {
        self.raw.key()
    }

    /// The value of a name, if it has one.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Outcome<Option<T>> {
        let tagged = self.raw.get(name).await;
        raw::untag(&tagged).map(|value| json::read("a state entry", &value)).transpose()
    }

    /// Whether a name has a value.
    pub async fn has(&self, name: &str) -> Outcome<bool> {
        Ok(raw::untag(&self.raw.get(name).await).is_some())
    }

    /// The names under a prefix, in order.
    pub async fn keys(&self, prefix: &str) -> Outcome<Vec<String>> {
        json::read("the names of a state", &self.raw.keys(prefix).await)
    }

    /// Names and values under a prefix, in order.
    pub async fn entries<T: DeserializeOwned>(&self, prefix: &str) -> Outcome<BTreeMap<String, T>> {
        json::read("a state", &self.raw.entries(prefix).await)
    }
}
