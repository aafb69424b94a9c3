//! The way in for a change of state by hand.

use selvedge_kernel::record::Writes;
use selvedge_kernel::record::message::Message;

use super::accept::Refused;
use super::{Answer, Progress, Shard};

impl Shard {
    /// Puts an edit into its actor's line. Where nothing is before it, its end is waited for; else it comes in its turn.
    pub(super) async fn edit(&mut self, message: Message) -> Result<Answer, Refused> {
        let (id, actor) = (message.id, message.target.clone());
        if let Some(found) = self.known(&message).await? {
            return Ok(match self.record_in_memory(found).await? {
                Some(record) if record.status.ended() => Answer { joined: false, id: Some(found), progress: Progress::Ended(self.outcome(&record).await?) },
                _ => Answer { joined: true, id: Some(found), progress: Progress::Open },
            });
        }
        self.room(&message).await?;
        let (mut writes, mut effects) = (Writes::default(), Vec::new());
        self.admit(message, Some((&mut writes, &mut effects))).await?;
        self.write(writes, effects);
        let first = self.actors.get(&actor).and_then(|actor| actor.queue.front()).is_some_and(|first| first.1 == id);
        if first { Err(Refused::Wait(id)) } else { Ok(Answer { joined: false, id: Some(id), progress: Progress::Open }) }
    }
}
