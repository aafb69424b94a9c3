//! What could be written next.

use super::parse::{Written, pieces};
use super::{FieldKind, List, Operator};

/// Something that could stand in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suggestion {
    /// The bytes of the text that it replaces.
    pub replaces: std::ops::Range<usize>,
    /// What it puts there.
    pub text: String,
    /// For people.
    pub about: String,
}

/// What could stand at `cursor`, an offset in bytes; a place inside a character counts as its start. Names of fields at the
/// beginning of a term, values after an operator; nothing inside of quotes.
#[must_use]
pub fn complete(list: List, text: &str, cursor: usize) -> Vec<Suggestion> {
    let cursor = (0..=cursor.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let before = &text[..cursor];
    // What was written before the cursor is read as a term that ends there.
    let open = match pieces(before).pop() {
        Some(Ok(piece)) if piece.end == cursor => Some(piece),
        _ => None,
    };
    let start = before.rfind(char::is_whitespace).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    let bare = word.strip_prefix('-').unwrap_or(word);
    match open.map(|piece| piece.says) {
        Some(Written::Field { name, value, value_at, .. }) => values(list, &name, &value, value_at..cursor),
        // A name and an operator, and nothing behind it yet: no term, but a place for a value.
        None if bare.ends_with([':', '>', '<', '=']) && !before[start..].contains('"') => {
            let name = bare.trim_end_matches([':', '>', '<', '=']);
            values(list, name, "", cursor..cursor)
        }
        Some(Written::Text(written)) if written == bare => names(list, bare, cursor - bare.len()..cursor),
        None if bare.is_empty() && !in_quotes(before) => names(list, "", cursor..cursor),
        _ => Vec::new(),
    }
}

fn in_quotes(before: &str) -> bool {
    let mut open = false;
    let mut letters = before.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => open = !open,
            '\\' if open => {
                letters.next();
            }
            _ => {}
        }
    }
    open
}

fn names(list: List, written: &str, replaces: std::ops::Range<usize>) -> Vec<Suggestion> {
    let fields = list.fields().iter().map(|field| {
        let sign = if matches!(field.kind, FieldKind::Duration | FieldKind::Number | FieldKind::Time) { Operator::Above } else { Operator::Is };
        (format!("{}{}", field.name, sign.sign()), field.about)
    });
    let attributes = list.has_attributes().then(|| ("attr.".to_owned(), "an attribute by its name"));
    let fitting = fields.chain(attributes).filter(|(text, _)| text.starts_with(written) && text != written);
    fitting.map(|(text, about)| Suggestion { replaces: replaces.clone(), text, about: about.to_owned() }).collect()
}

fn values(list: List, name: &str, written: &str, replaces: std::ops::Range<usize>) -> Vec<Suggestion> {
    let Some(field) = list.find(name) else { return Vec::new() };
    let words: &[&str] = match field.kind {
        FieldKind::Word(words) => words,
        FieldKind::Duration => &["5m", "1h", "1d", "7d"],
        FieldKind::Text | FieldKind::Number | FieldKind::Time => &[],
    };
    let fitting = words.iter().filter(|word| word.starts_with(written) && **word != written);
    fitting.map(|word| Suggestion { replaces: replaces.clone(), text: (*word).to_owned(), about: field.about.to_owned() }).collect()
}
