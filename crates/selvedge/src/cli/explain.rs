//! `explain`: what a stable code means, why it came, and what to do about it.

mod pages;

use selvedge_kernel::nearest::nearest;
use serde_json::json;

use super::args::Common;
use super::exit::{Code, Stop};
use super::print;
use pages::PAGES;

/// `explain [CODE]`
pub fn explain(common: &Common, code: Option<&str>) -> Result<Code, Stop> {
    match code {
        None => {
            let lines: Vec<Vec<String>> = PAGES.iter().map(|(code, page)| vec![(*code).to_owned(), first_sentence(page)]).collect();
            let listed = lines.iter().map(|line| json!({ "code": line[0], "what": line[1] })).collect();
            print::result(common.output, &listed, || print::table(&["CODE", "WHAT HAPPENED"], &lines))?;
        }
        Some(asked) => {
            let (code, page) = page(asked).ok_or_else(|| Stop::usage(unknown(asked)))?;
            print::result(common.output, &json!({ "code": code, "page": page }), || page.trim_end().to_owned())?;
        }
    }
    Ok(Code::Done)
}

/// A line that names the page of a code, where there is one that says more than the error does.
pub fn pointer(code: &str) -> Option<String> {
    page(code).map(|(code, _)| format!("  more: selvedge explain {}", file_of(code)))
}

/// The page of a code, as written or as its file is called; `http_404` has the page `http_N`.
fn page(asked: &str) -> Option<(&'static str, &'static str)> {
    let asked = file_of(asked);
    let of = |name: &str| PAGES.iter().find(|(code, _)| file_of(code) == name).copied();
    of(&asked).or_else(|| {
        let (family, number) = asked.rsplit_once('_')?;
        number.bytes().all(|digit| digit.is_ascii_digit()).then(|| of(&format!("{family}_N"))).flatten()
    })
}

/// `limit: body` as one word.
fn file_of(code: &str) -> String {
    code.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

fn first_sentence(page: &str) -> String {
    let paragraph = page.split("\n\n").nth(1).unwrap_or_default().replace('\n', " ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |at| at + 1);
    paragraph[..end].to_owned()
}

fn unknown(asked: &str) -> String {
    let hint = match nearest(asked, PAGES.iter().map(|(code, _)| *code)) {
        Some(near) => format!("did you mean `{}`? ", file_of(near)),
        None => String::new(),
    };
    let all = "`selvedge explain` lists all; a code that an activity of yours has made up is not among them";
    format!("no error of ours has the code `{asked}`: {hint}{all}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_page_says_what_happened_why_and_what_to_do_with_an_example() {
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# `{code}`\n\n")), "{code}");
            assert!((8..=25).contains(&page.lines().count()), "{code}");
            for part in ["\n**Why.** ", "\n**What to do.** ", "\n```\n"] {
                assert_eq!(page.matches(part).count(), if part == "\n```\n" { 2 } else { 1 }, "{code}: {part}");
            }
        }
    }

    #[test]
    fn a_code_is_found_as_it_is_shown_as_its_file_is_called_and_by_its_family() {
        for (asked, code) in [("limit: body", "limit: body"), ("limit_body", "limit: body"), ("http_404", "http_N"), ("exit_2", "exit_N"), ("open", "open")] {
            assert_eq!(page(asked).map(|(code, _)| code), Some(code), "{asked}");
        }
        assert_eq!(page("http_teapot"), None);
        assert!(unknown("deadlok").contains("did you mean `deadlock`?"));
        assert!(unknown("card_declined").contains("made up"));
    }
}
