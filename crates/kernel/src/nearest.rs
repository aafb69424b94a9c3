//! "Did you mean": the known name that is nearest to what was written.

/// The nearest of `known`, if it is near enough to be meant.
///
/// ```
/// assert_eq!(selvedge_kernel::nearest::nearest("attemps", ["after", "attempts"]), Some("attempts"));
/// assert_eq!(selvedge_kernel::nearest::nearest("zebra", ["after", "attempts"]), None);
/// ```
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&written, &name.to_lowercase()), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

/// Fields of a pipeline by what other systems call them.
const ELSEWHERE: [(&str, &str); 8] = [
    ("after", "depends_on"),
    ("needs", "depends_on"),
    ("depends", "depends_on"),
    ("requires", "depends_on"),
    ("steps", "stages"),
    ("jobs", "stages"),
    ("uses", "call"),
    ("if", "when"),
];

/// The field that somebody means who knows it from another system by the name that was written.
///
/// ```
/// assert_eq!(selvedge_kernel::nearest::elsewhere("needs"), Some("depends_on"));
/// assert_eq!(selvedge_kernel::nearest::elsewhere("name"), None);
/// ```
#[must_use]
pub fn elsewhere(written: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(theirs, _)| *theirs == written).map(|(_, ours)| *ours)
}

/// A hint: the nearest of `known`, or all of them where they are few.
#[must_use]
pub fn suggestion<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(written, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let all: Vec<&str> = known.into_iter().collect();
    match all.len() {
        0 => String::new(),
        1 => format!("there is only `{}`", all[0]),
        2..=16 => format!("known here: {}", all.join(", ")),
        _ => String::new(),
    }
}
