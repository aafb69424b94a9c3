//! What is said when the words do not fit.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use selvedge_kernel::nearest::nearest;

use super::args::Cli;
use super::exit::Code;
use super::print;

/// Prints help, version or what is wrong, and gives the exit code.
pub fn end(error: &clap::Error) -> Code {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Code::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Code::Usage
        }
        _ => {
            let words: Vec<String> = std::env::args().skip(1).take(3).collect();
            let hint = swapped(&words).or_else(|| match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
                (ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) => no_verb(word).or_else(|| meant(word)),
                (ErrorKind::UnknownArgument, _) => match error.get(ContextKind::InvalidArg) {
                    Some(ContextValue::String(word)) => other_key(word).map(str::to_owned),
                    _ => None,
                },
                _ => None,
            });
            let text = hint.unwrap_or_else(|| error.to_string());
            print::complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            Code::Usage
        }
    }
}

/// `run show` where `runs show` was meant.
pub fn swapped(words: &[String]) -> Option<String> {
    let [first, verb, ..] = words else { return None };
    let known = Cli::command().find_subcommand("runs")?.get_subcommands().any(|known| known.get_name() == verb.as_str());
    (first == "run" && known).then(|| format!("`run` runs a pipeline's file: did you mean `selvedge runs {verb}`?"))
}

/// The name that a key has at a verb which does not know the other one.
fn other_key(written: &str) -> Option<&'static str> {
    match written {
        "--idempotency-key" => Some("there is no --idempotency-key here: write --key KEY"),
        "--key" => Some("there is no --key here: write --idempotency-key KEY where a message or a signal is sent"),
        _ => None,
    }
}

/// A verb that the noun before it does not have.
fn no_verb(word: &str) -> Option<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let before = words.iter().take_while(|said| *said != word);
    let mut found = Cli::command();
    let mut noun = Vec::new();
    for said in before {
        if let Some(below) = found.find_subcommand(said).cloned() {
            noun.push(said.as_str());
            found = below;
        }
    }
    let verbs: Vec<&str> = found.get_subcommands().map(clap::Command::get_name).collect();
    if noun.is_empty() || verbs.is_empty() {
        return None;
    }
    let noun = noun.join(" ");
    let near = nearest(word, verbs.iter().copied()).map(|verb| format!("did you mean `selvedge {noun} {verb}`? ")).unwrap_or_default();
    Some(format!("`{noun}` has no verb `{word}`: {near}It has {}", verbs.join(", ")))
}

/// A verb where a noun was meant: the nouns that have it.
fn meant(word: &str) -> Option<String> {
    if word == "start" {
        let text =
            "`start` is a verb, its noun comes first: `selvedge pipelines start NAME`; `selvedge run FILE` starts a file and goes on with it after a kill";
        return Some(text.to_owned());
    }
    let command = Cli::command();
    let nouns: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    if nouns.contains(&word) || nearest(word, nouns.iter().copied()).is_some() {
        return None;
    }
    let verbs: Vec<(&str, &str)> = command.get_subcommands().flat_map(|noun| noun.get_subcommands().map(|verb| (noun.get_name(), verb.get_name()))).collect();
    let verb = nearest(word, verbs.iter().map(|(_, verb)| *verb))?;
    let whole: Vec<String> = verbs.iter().filter(|(_, known)| *known == verb).map(|(noun, verb)| format!("`selvedge {noun} {verb}`")).collect();
    Some(format!("`{word}` is a verb, its noun comes first: did you mean {}?", whole.join(" or ")))
}
