//! Lists a page at a time, and the words that lead to the next one.

use std::cmp::Reverse;
use std::str::FromStr;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::PAGE;
use selvedge_kernel::time::Millis;
use serde_json::Value;

use super::Problem;
use crate::listing::{Newest, Page};

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// So many lines, at least one; none: as many as there are in the longest page.
    pub limit: Option<usize>,
    /// What led to this page; none: the first one.
    pub cursor: Option<String>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Paged {
    /// Its lines.
    pub lines: Value,
    /// What leads to the next one; none: this is the last.
    pub next: Option<String>,
}

impl Pages {
    fn size(&self) -> Result<usize, Problem> {
        match self.limit.unwrap_or(PAGE) {
            size if (1..=PAGE).contains(&size) => Ok(size),
            size => Err(Problem::new(Consequence::FixInput, "bad_request", format!("a page of {size} lines cannot be had: write a limit from 1 to {PAGE}"))),
        }
    }

    /// One line more than is wanted: whether there is a next page is known by it.
    pub(super) fn page<K>(&self, read: impl Fn(&str) -> Option<K>) -> Result<Page<K>, Problem> {
        let after = self.cursor.as_deref().map(|cursor| read(cursor).ok_or_else(|| unknown(cursor))).transpose()?;
        Ok(Page { after, size: self.size()? + 1 })
    }

    /// What is shown of the lines that were found.
    pub(super) fn shown<T>(&self, mut found: Vec<T>, cursor: impl Fn(&T) -> String) -> Result<(Vec<T>, Option<String>), Problem> {
        let size = self.size()?;
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(cursor);
        Ok((found, next))
    }
}

fn unknown(cursor: &str) -> Problem {
    Problem::new(Consequence::FixInput, "bad_request", format!("`{cursor}` is no cursor that this list gave: leave it out to begin with the first page"))
}

/// The place of a line in a list that begins with the newest.
pub(super) fn newest<I: FromStr>(cursor: &str) -> Option<Newest<I>> {
    let (at, id) = cursor.split_once('-')?;
    Some((Reverse(Millis(at.parse().ok()?)), id.parse().ok()?))
}

/// The cursor of such a place.
pub(super) fn at(at: Millis, id: impl std::fmt::Display) -> String {
    format!("{}-{id}", at.0)
}
