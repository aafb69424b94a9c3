//! The bounds of what we take from a program, and the readers that keep them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A line of the protocol, and the output of a one-shot program, in bytes.
pub const LINE_BYTES: usize = 8 << 20;
/// The end of a program's standard error that is kept, in bytes.
pub const TAIL_BYTES: usize = 4 << 10;
/// One log line, and the message of an error, in bytes.
pub const MESSAGE_BYTES: usize = 16 << 10;
/// The code of an error, in bytes.
pub const CODE_BYTES: usize = 128;
/// Log lines and heartbeats of one task that wait to be taken; more are counted and dropped.
pub const EVENTS: usize = 256;

/// The text, or its first `bytes` bytes with a note that it went on.
#[must_use]
pub fn shorten(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… ({} bytes in all)", &text[..end], text.len())
}

/// One line of a stream, without its line break.
#[derive(PartialEq, Eq, Debug)]
pub enum BoundedLine {
    /// All of it.
    Whole(Vec<u8>),
    /// It was too long: its first bytes and how long it was.
    TooLong {
        /// At most the limit.
        start: Vec<u8>,
        /// In bytes.
        len: u64,
    },
}

/// Reads lines and holds at most `limit` bytes of one.
#[derive(Debug)]
pub struct LineReader<R> {
    from: BufReader<R>,
    limit: usize,
    line: Vec<u8>,
    len: u64,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Lines of `from`, of at most `limit` bytes each.
    pub fn new(from: R, limit: usize) -> LineReader<R> {
        LineReader { from: BufReader::with_capacity(64 << 10, from), limit, line: Vec::new(), len: 0 }
    }

    /// The next line; `None` at the end of the stream. A last line without its break counts as one. A call that is given
    /// up loses nothing: the next one goes on where it was.
    ///
    /// # Errors
    /// What reading the stream gives.
    pub async fn next(&mut self) -> std::io::Result<Option<BoundedLine>> {
        loop {
            let available = self.from.fill_buf().await?;
            if available.is_empty() {
                return Ok((self.len > 0).then(|| self.taken()));
            }
            let (part, used, ended) = match available.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&available[..at], at + 1, true),
                None => (available, available.len(), false),
            };
            self.len += part.len() as u64;
            let room = self.limit.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.from.consume(used);
            if ended {
                return Ok(Some(self.taken()));
            }
        }
    }

    fn taken(&mut self) -> BoundedLine {
        let (line, len) = (std::mem::take(&mut self.line), std::mem::take(&mut self.len));
        if len > self.limit as u64 { BoundedLine::TooLong { start: line, len } } else { BoundedLine::Whole(line) }
    }
}

/// The last [`TAIL_BYTES`] of what a program said, shared between who listens and who reports.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    lines: Arc<Mutex<(VecDeque<String>, usize)>>,
}

impl Tail {
    /// Appends a line; the oldest ones make room.
    pub fn push(&self, line: &str) {
        let line = shorten(line, TAIL_BYTES / 4);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.1 += line.len() + 1;
        lines.0.push_back(line);
        while lines.1 > TAIL_BYTES
            && let Some(oldest) = lines.0.pop_front()
        {
            lines.1 -= oldest.len() + 1;
        }
    }

    /// What is kept, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_line_longer_than_the_limit_is_passed_over_and_the_next_one_is_whole() {
        let text = format!("short\n{}\nnext\nhalf", "x".repeat(100_000));
        let mut lines = LineReader::new(text.as_bytes(), 10);
        assert_eq!(lines.next().await.unwrap(), Some(BoundedLine::Whole(b"short".to_vec())));
        assert_eq!(lines.next().await.unwrap(), Some(BoundedLine::TooLong { start: b"xxxxxxxxxx".to_vec(), len: 100_000 }));
        assert_eq!(lines.next().await.unwrap(), Some(BoundedLine::Whole(b"next".to_vec())));
        assert_eq!(lines.next().await.unwrap(), Some(BoundedLine::Whole(b"half".to_vec())));
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[test]
    fn the_tail_of_an_endless_speaker_stays_small() {
        let tail = Tail::default();
        for n in 0..10_000 {
            tail.push(&format!("{n} {}", "y".repeat(n % 9_000)));
        }
        assert!(tail.text().len() <= TAIL_BYTES);
        assert!(tail.text().contains("9999 "));
    }

    #[test]
    fn a_text_is_shortened_at_a_letter() {
        assert_eq!(shorten("äöü", 3), "ä… (6 bytes in all)");
        assert_eq!(shorten("ab", 2), "ab");
    }
}
