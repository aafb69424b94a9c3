//! Does the code at hand fit what has been recorded?

use std::time::Duration;

use selvedge_engine::rehearse::{Journals, Rehearsed};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::time::Millis;

use crate::client::{Client, VerbFailed};

/// Why journals could not be replayed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RehearseError(#[from] pub VerbFailed);

impl Client {
    /// Replays recorded journals with the handlers of this program, and says which would block, each with what its
    /// journal says and what the handler asks for. It reads, and writes nothing: put it before a deploy.
    ///
    /// Those of actors of one type, or of all; those of invocations that are open, and of those accepted within a span.
    ///
    /// ```
    /// # async fn example(client: selvedge::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let found = client.rehearse(Some("order"), std::time::Duration::from_secs(7 * 86_400)).await?;
    /// assert!(found.misfits.is_empty());
    /// # Ok(()) }
    /// ```
    pub async fn rehearse(&self, kind: Option<&str>, within: Duration) -> Result<Rehearsed, RehearseError> {
        let permit = self.permit(Action::Operate, Resource::Store)?;
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let since = Millis(self.engine.now().0.saturating_sub(within_ms));
        Ok(self.engine.rehearse(permit, Journals { kind: kind.map(str::to_owned), since }).await.map_err(VerbFailed::from)?)
    }
}
