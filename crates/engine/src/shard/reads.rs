//! What a handler reads of the state, and the object that entries make.

use bytes::Bytes;
use selvedge_kernel::journal::OpKind;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;

use super::activate::Activation;
use super::{Shard, VerbError};
use crate::core::{Fresh, Load};
use crate::ctx::tag;

impl Shard {
    pub(super) async fn load(&mut self, activation: &mut Activation, load: Load) -> Result<(), VerbError> {
        let actor = activation.record.message.target.clone();
        let name = match &load {
            Load::Recorded { entry, .. } if entry.header.signature.kind == OpKind::StateGet => Some(entry.header.signature.name.clone()),
            Load::Get { name, .. } => Some(name.clone()),
            _ => None,
        };
        let (number, value) = match load {
            Load::Recorded { number, entry } => (number, self.payload(activation.id().0, entry.seal, &entry.payload).await?),
            Load::Get { number, name } => {
                let stored = self.get(key::state(&actor, &name)).await?;
                (number, tag(stored.as_ref()))
            }
            Load::Clear { number } => {
                let kept: Vec<String> = self.state_entries(&actor, "").await?.into_iter().map(|entry| entry.0).collect();
                let mut state = activation.core.state.borrow_mut();
                state.charge_cleared(kept.len());
                for fresh in &mut state.fresh {
                    if let Fresh::Clear { signature, names } = fresh
                        && signature.number == number
                    {
                        names.clone_from(&kept);
                    }
                }
                return Ok(());
            }
            Load::Keys { number, prefix } => {
                let entries = self.own_entries(activation, &actor, &prefix).await?;
                let names: Vec<&String> = entries.iter().map(|entry| &entry.0).collect();
                (number, Bytes::from(serde_json::to_vec(&names).unwrap_or_default()))
            }
            Load::Entries { number, prefix } => {
                let entries = self.own_entries(activation, &actor, &prefix).await?;
                (number, object(&entries))
            }
        };
        let mut state = activation.core.state.borrow_mut();
        for fresh in &mut state.fresh {
            if let Fresh::Read { signature, payload } = fresh
                && signature.number == number
            {
                *payload = Some(value.clone());
            }
        }
        if let Some(name) = name {
            state.reading.remove(&name);
            state.view.entry(name).or_insert_with(|| crate::ctx::untag(&value));
        }
        state.reads.insert(number, value);
        Ok(())
    }

    /// The state under a prefix, with what this invocation has written and not committed yet.
    async fn own_entries(&self, activation: &Activation, actor: &selvedge_kernel::id::ActorId, prefix: &str) -> Result<Vec<(String, Bytes)>, VerbError> {
        let mut entries: std::collections::BTreeMap<String, Bytes> =
            if activation.core.state.borrow().cleared { Default::default() } else { self.state_entries(actor, prefix).await?.into_iter().collect() };
        let state = activation.core.state.borrow();
        for (name, value) in &state.view {
            if name.starts_with(prefix) {
                match value {
                    Some(value) => entries.insert(name.clone(), value.clone()),
                    None => entries.remove(name),
                };
            }
        }
        Ok(entries.into_iter().collect())
    }

    /// The committed state of an actor under a prefix.
    pub(crate) async fn state_entries(&self, actor: &selvedge_kernel::id::ActorId, prefix: &str) -> Result<Vec<(String, Bytes)>, VerbError> {
        let all = key::of_actor(Kind::State, actor);
        let rows = self.scan_all(&all).await?;
        let mut entries = Vec::new();
        for (row, value) in rows {
            if let Some(name) = row.get(all.len() + 2..).and_then(|name| std::str::from_utf8(name).ok())
                && name.starts_with(prefix)
            {
                entries.push((name.to_owned(), value));
            }
        }
        entries.sort();
        Ok(entries)
    }
}

/// A JSON object of values that are JSON already.
pub(crate) fn object(entries: &[(String, Bytes)]) -> Bytes {
    let mut json = vec![b'{'];
    for (name, value) in entries {
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(&serde_json::to_vec(name).unwrap_or_default());
        json.push(b':');
        json.extend_from_slice(value);
    }
    json.push(b'}');
    Bytes::from(json)
}
