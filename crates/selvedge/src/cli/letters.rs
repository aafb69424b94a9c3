//! `dead-letters`: what could not be handled, and sent again.

use selvedge_engine::wiring::Tasks;
use serde_json::Value;

use crate::app::App;
use crate::control::Request;

use super::access::{ask_once, ask_whoever};
use super::actors::text;
use super::args::{Common, DeadLetters, InvocationId};
use super::exit::{Code, Stop};
use super::stuck::nothing;
use super::{print, said};

/// `dead-letters …`
pub async fn dead_letters(common: &Common, app: App, verb: DeadLetters) -> Result<Code, Stop> {
    match verb {
        DeadLetters::List(keep) => {
            let letters = ask_once(common, app, Tasks::Leave, Request::DeadLetters { filter: keep.filter.clone() }).await?;
            print::result(common.output, &letters, || {
                let rows: Vec<Vec<String>> = letters.as_array().into_iter().flatten().map(row).collect();
                let names = ["INVOCATION", "ACTOR", "HANDLER", "ATTEMPTS", "AT", "ERROR"];
                if rows.is_empty() { nothing("there is no dead letter", &keep) } else { print::table(&names, &rows) }
            })?;
        }
        DeadLetters::Show(InvocationId { id }) => {
            let letter = ask_once(common, app, Tasks::Leave, Request::DeadLetter { id }).await?;
            print::result(common.output, &letter, || whole(&letter))?;
        }
        DeadLetters::Redrive { letter, input } => {
            let input = input.map(|input| said::json("--input", &input)).transpose()?.map(|said| said.text);
            let (again, held) = ask_whoever(common, app, Tasks::Leave, Request::Redrive { id: letter.id, input }).await?;
            print::result(common.output, &again, || match &again["signal"] {
                Value::String(name) => format!("the signal `{name}` is kept until somebody takes it"),
                _ => text(&again["id"]),
            })?;
            if !held {
                print::note("accepted; nobody holds the data directory: it is handled when somebody does");
            }
        }
    }
    Ok(Code::Done)
}

fn row(letter: &Value) -> Vec<String> {
    let mut row: Vec<String> = ["id", "actor", "handler", "attempts", "at"].iter().map(|name| text(&letter[*name])).collect();
    row.push(error(letter));
    row
}

fn error(letter: &Value) -> String {
    format!("{}: {}", text(&letter["error"]["code"]), text(&letter["error"]["message"]))
}

fn whole(letter: &Value) -> String {
    let of = |name: &str| text(&letter[name]);
    format!(
        "{} to {}, {}: given up at {} after {} attempts\nerror: {}\nsent by: {}\ninput: {}",
        of("id"),
        of("actor"),
        of("handler"),
        of("at"),
        of("attempts"),
        error(letter),
        of("principal"),
        print::pretty(&letter["input"])
    )
}
