//! Lists.

use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::filter::List;
use serde_json::{Value, json};

use super::json::value;
use super::paged::{Paged, Pages, at, newest};
use super::{Asker, Problem};
use crate::listing::{Listed, row};

impl Asker<'_> {
    /// Actors, by type and key.
    pub async fn actors(&self, filter: &str, pages: &Pages) -> Result<Paged, Problem> {
        let filter = row::filter(List::Actors, filter)?;
        let page = pages.page(|cursor| cursor.split_once('/').map(|(kind, key)| (kind.to_owned(), key.to_owned())))?;
        let found = self.engine.find_actors(self.permit(Action::Read, Resource::Store)?, &filter, &page).await?;
        let (lines, next) = pages.shown(found, |line| format!("{}/{}", line.kind, line.key))?;
        Ok(Paged { lines: value(&lines)?, next })
    }

    /// Invocations, the newest first.
    pub async fn invocations(&self, listed: Listed, filter: &str, pages: &Pages) -> Result<Paged, Problem> {
        let filter = row::filter(List::Invocations, filter)?;
        let found = self.engine.find_invocations(self.permit(Action::Read, Resource::Store)?, listed, &filter, &pages.page(newest)?).await?;
        let (lines, next) = pages.shown(found, |line| at(line.accepted_at, line.id))?;
        let shown = lines.iter().map(|line| {
            json!({
                "id": line.id.to_string(), "actor": line.actor, "handler": line.handler, "status": line.status,
                "attempt": line.attempt, "accepted_at": line.accepted_at.to_string(), "accepted_at_ms": line.accepted_at,
            })
        });
        Ok(Paged { lines: Value::Array(shown.collect()), next })
    }
}
