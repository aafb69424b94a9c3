//! What tasks of all runs share: limits and breakers, and what each is called.

use serde_json::Value;

use super::definition::Http;
use super::expression::{Doc, Expression, ExpressionError, Scope};
use super::functions::host;
use super::template::Template;
use crate::error::WorkError;
use crate::limit::KEY_PART_BYTES;
use crate::policy::{Breaker, Throttle};

/// A limit that a task shares with those of other runs.
#[derive(Clone, Debug)]
pub struct SharedLimit {
    /// `stage PIPELINE.STAGE` or `activity NAME`.
    pub name: String,
    /// What it limits to.
    pub throttle: Throttle,
    /// One limit for each of its values.
    pub key: LimitKey,
}

/// A breaker that a task shares with those of other runs.
#[derive(Clone, Debug)]
pub struct SharedBreaker {
    /// `breaker of activity NAME`, or `breaker of stage PIPELINE.STAGE`: of a stage that calls several, with whom.
    pub name: String,
    /// When it opens.
    pub breaker: Breaker,
    /// Of an `http` activity whose input says the host: its URL, over `input`. There is one breaker for each host.
    pub url: Option<Template>,
}

impl SharedBreaker {
    /// What all their names begin with.
    pub const OF: &'static str = "breaker of ";

    /// The breaker of an activity, and what it requests if it does. Errors: its URL does not compile.
    pub fn of_activity(name: &str, breaker: &Breaker, http: Option<&Http>) -> Result<SharedBreaker, ExpressionError> {
        Ok(SharedBreaker { name: format!("{}activity {name}", SharedBreaker::OF), breaker: breaker.clone(), url: any_host(http)? })
    }

    /// What the breaker is called for a task with this input. Without a host it is the activity's: the attempt says what is wrong with its URL.
    ///
    /// # Errors
    /// The input is no JSON.
    pub fn of_input(&self, input: &[u8]) -> Result<String, WorkError> {
        let Some(url) = &self.url else { return Ok(self.name.clone()) };
        let host = url.eval_doc(&over(input)?).ok().and_then(|url| host(&url.text())).filter(|host| host.len() <= KEY_PART_BYTES);
        Ok(host.map_or_else(|| self.name.clone(), |host| format!("{}[{host}]", self.name)))
    }
}

/// The URL of a request, if its host is not written in it.
pub fn any_host(http: Option<&Http>) -> Result<Option<Template>, ExpressionError> {
    let Some(url) = http.map(|http| &http.url) else { return Ok(None) };
    let written = url.split("${").next().unwrap_or_default();
    let host_is_written = written.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?', '#'])) || written.len() == url.len();
    if host_is_written { Ok(None) } else { Template::compile(&Value::String(url.clone())).map(Some) }
}

/// What tells the limits of one name apart.
#[derive(Clone, Debug)]
pub enum LimitKey {
    /// There is one.
    None,
    /// An expression in the scope of the task.
    Task(Expression),
    /// An expression whose only root is `input`, the task's.
    Input(Expression),
}

impl SharedLimit {
    /// The limit of an activity. Errors: its key does not compile.
    pub fn of_activity(name: &str, throttle: &Throttle) -> Result<SharedLimit, ExpressionError> {
        let key = match &throttle.key {
            None => LimitKey::None,
            Some(text) => LimitKey::Input(Expression::compile(text)?),
        };
        Ok(SharedLimit { name: format!("activity {name}"), throttle: throttle.clone(), key })
    }

    /// What the limit is called that the value of its key names.
    ///
    /// # Errors
    /// `expression` if the value is null, `limit` if its text is longer than a part of a key may be.
    pub fn named(&self, key: &Doc) -> Result<String, WorkError> {
        if key.is_null() {
            return Err(WorkError::new("expression", format!("`throttle.key` of {} is null: it names no limit", self.name)));
        }
        let text = key.text();
        if text.len() > KEY_PART_BYTES {
            let text = format!("`throttle.key` of {} gives {} bytes (limit: key_part = {KEY_PART_BYTES}): make it shorter", self.name, text.len());
            return Err(WorkError::new("limit", text));
        }
        Ok(format!("{}[{text}]", self.name))
    }

    /// What the limit of an activity is called for a task with this input.
    ///
    /// # Errors
    /// The key does not evaluate, or see [`SharedLimit::named`].
    pub fn of_input(&self, input: &[u8]) -> Result<String, WorkError> {
        match &self.key {
            LimitKey::None | LimitKey::Task(_) => Ok(self.name.clone()),
            LimitKey::Input(key) => {
                let value = key.eval(&over(input)?).map_err(|error| WorkError::new("expression", format!("`throttle.key`: {error}")))?;
                self.named(&value)
            }
        }
    }
}

/// The scope of what reads the input alone.
fn over(input: &[u8]) -> Result<Scope, WorkError> {
    let input = if input.is_empty() { Doc::null() } else { Doc::parse(input).map_err(|error| WorkError::new("expression", format!("input: {error}")))? };
    let mut scope = Scope::new();
    scope.set("input", input);
    Ok(scope)
}
