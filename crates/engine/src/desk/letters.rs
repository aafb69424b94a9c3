//! Dead letters: listed, shown whole, sent again.

use crate::Redriven;
use crate::listing::row;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::filter::List;
use selvedge_kernel::journal::Payload;
use selvedge_kernel::record::actor::DeadLetter;
use serde_json::{Value, json};

use super::Problem;
use super::asker::Asker;
use super::invocations::invocation_id;
use super::json::{of_bytes, text_of};
use super::paged::{Paged, Pages, at, newest};

impl Asker<'_> {
    /// The dead letters for which a filter holds.
    pub async fn dead_letters(&self, filter: &str, pages: &Pages) -> Result<Paged, Problem> {
        let filter = row::filter(List::DeadLetters, filter)?;
        let found = self.engine.find_dead_letters(self.permit(Action::Read, Resource::Store)?, &filter, &pages.page(newest)?).await?;
        let (letters, next) = pages.shown(found, |letter| at(letter.at, letter.message.id))?;
        Ok(Paged { lines: Value::Array(letters.iter().map(shown).collect()), next })
    }

    /// One of them, whole.
    pub async fn dead_letter(&self, id: &str) -> Result<Value, Problem> {
        let letter = self.engine.dead_letter(self.work(Action::Read, id)?, invocation_id(id)?).await?;
        Ok(Value::Object(shown(&letter).as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).chain(whole(&letter)).collect()))
    }

    /// Sends one of them again. Another input than its own needs the right to rewrite.
    pub async fn redrive(&self, id: &str, input: Option<String>) -> Result<Value, Problem> {
        let input = input.map(text_of).transpose()?;
        let action = if input.is_some() { Action::Rewrite } else { Action::Control };
        Ok(match self.engine.redrive(self.work(action, id)?, invocation_id(id)?, input).await? {
            Redriven::Invocation(again) => json!({ "id": again.to_string() }),
            Redriven::Signal(name) => json!({ "id": null, "signal": name }),
        })
    }
}

/// A line of the list. An input that is kept in pieces is shown by its size alone.
fn shown(letter: &DeadLetter) -> Value {
    let message = &letter.message;
    let (input, bytes) = match &letter.input {
        Payload::Inline(input) => (of_bytes(input), Some(input.len() as u64)),
        Payload::Chunked { len } => (Value::Null, Some(*len)),
        Payload::Erased => (Value::Null, None),
    };
    json!({
        "id": message.id.to_string(), "actor": message.target.to_string(), "handler": message.handler,
        "input": input, "input_bytes": bytes, "error": letter.error, "attempts": letter.attempts, "at": letter.at.to_string(),
    })
}

/// What a letter has beside its line.
fn whole(letter: &DeadLetter) -> [(String, Value); 3] {
    let message = &letter.message;
    [
        ("input".to_owned(), of_bytes(&message.input)),
        ("principal".to_owned(), message.context.principal.id.clone().into()),
        ("idempotency_key".to_owned(), message.idempotency_key.clone().into()),
    ]
}
