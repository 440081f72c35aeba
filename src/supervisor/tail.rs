//! The last of what a server wrote to its standard error, for messages about why it failed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::logs::Sink;
use crate::secrets::{Redactor, VALUE_BYTES_MAX};

/// A line longer than this is cut.
const LINE_BYTES_MAX: usize = 1000;

/// Of a line as it was written more is not looked at: with the longest secret in it, what is kept of it is whole still.
const WRITTEN_BYTES_MAX: usize = VALUE_BYTES_MAX + 2 * LINE_BYTES_MAX;

/// What keeping a line takes besides its text.
pub(super) const LINE_BYTES: usize = 48;

/// A bounded memory of lines; old ones make room for new ones. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    lines: Arc<Mutex<Lines>>,
    redactor: Redactor,
    sink: Option<Sink>,
}

#[derive(Debug)]
struct Lines {
    kept: VecDeque<String>,
    count: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize, redactor: Redactor) -> Self {
        let lines = Lines { kept: VecDeque::new(), count: 0, bytes: 0, bytes_max };
        Self { lines: Arc::new(Mutex::new(lines)), redactor, sink: None }
    }

    /// Has every line also go where the operator looks.
    pub(crate) fn told_to(self, sink: Sink) -> Self {
        Self { sink: Some(sink), ..self }
    }

    /// An empty one of the same size, whose lines go to the same place.
    pub(crate) fn another(&self) -> Self {
        let bytes_max = self.lines.lock().unwrap_or_else(PoisonError::into_inner).bytes_max;
        Self { sink: self.sink.clone(), ..Self::new(bytes_max, self.redactor.clone()) }
    }

    /// Keeps a line without the secrets that are known now, unless it is blank.
    pub(crate) fn line(&self, line: &str) {
        // As it was written, and again, since a value may be coloured within. Cut last: that would leave a part of one.
        let line = printable(&self.redactor.redact(line));
        let line = cut(self.redactor.redact(&line).into_owned());
        let is_blank = line.trim().is_empty();
        if let Some(sink) = self.sink.as_ref().filter(|_| !is_blank) {
            sink.line(&line);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.count += 1;
        if is_blank {
            return;
        }
        lines.bytes += line.len() + LINE_BYTES;
        lines.kept.push_back(line);
        while lines.bytes > lines.bytes_max {
            match lines.kept.pop_front() {
                Some(old) => lines.bytes -= old.len() + LINE_BYTES,
                None => break,
            }
        }
    }

    /// Forgets what was kept, because something else is started now.
    pub(crate) fn clear(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.kept.clear();
        lines.bytes = 0;
    }

    /// How many lines there have been, with blank ones: each is a sign of life.
    pub(crate) fn count(&self) -> u64 {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The last few lines, oldest first; empty when there was nothing.
    pub(crate) fn last(&self, count: usize) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.kept.len().saturating_sub(count);
        lines.kept.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// What a server writes, as it comes, made into lines. A secret in it may come in two pieces.
pub(crate) struct Feed {
    tail: Tail,
    line: Vec<u8>,
}

impl Feed {
    pub(crate) fn to(tail: Tail) -> Self {
        Self { tail, line: Vec::new() }
    }

    /// Takes what comes next. Of a line that is far longer than what is kept of it the rest is dropped.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = WRITTEN_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.tail.line(&String::from_utf8_lossy(&self.line));
        self.line.clear();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // What came last has no line's end.
        if !self.line.is_empty() {
            self.end();
        }
    }
}

fn cut(mut line: String) -> String {
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.push('…');
    }
    line
}

fn printable(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut escape = false;
    for character in line.trim_end().chars() {
        match character {
            '\u{1b}' => escape = true,
            'm' | 'K' if escape => escape = false,
            _ if escape => {}
            control if control.is_control() => kept.push(' '),
            other => kept.push(other),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{
        super::logs::{Logs, Wanted},
        *,
    };
    use crate::clock::SystemClock;

    #[test]
    fn old_lines_make_room() {
        let tail = Tail::new(2 * (4 + LINE_BYTES), Redactor::default());
        for line in ["aaaa", "bbbb", "cccc"] {
            tail.line(line);
        }
        assert_eq!(tail.last(10), "bbbb\ncccc");
        assert_eq!(tail.last(1), "cccc");
    }

    #[test]
    fn short_lines_and_blank_ones_are_bounded_too() {
        let logs = Logs::new(Arc::new(SystemClock), 10 * LINE_BYTES);
        let tail = Tail::new(10 * LINE_BYTES, Redactor::default()).told_to(logs.of(None, &"flood".parse().unwrap()));
        tail.line("x");
        for _ in 0..1000 {
            ["", "\n", " \t\r\n", "\u{1b}[0m"].iter().for_each(|blank| tail.line(blank));
        }
        let kept = || logs.lines(&Wanted { lines_max: 10_000, ..Wanted::default() }).len();
        assert_eq!((tail.last(10_000).as_str(), kept(), tail.count()), ("x", 1, 4001));
        (0..1000).for_each(|_| tail.line("y"));
        assert_eq!((tail.last(10_000).lines().count(), kept()), (9, 9));
    }

    #[test]
    fn a_secret_is_not_kept_and_so_not_shown_when_it_is_none_any_more() {
        let redactor = Redactor::default();
        redactor.replace(vec!["hunter2-hunter2".to_owned().into()]);
        let logs = Logs::new(Arc::new(SystemClock), 10_000);
        let tail = Tail::new(10_000, redactor.clone()).told_to(logs.of(None, &"loud".parse().unwrap()));
        tail.line("key hunter2-hunter2");
        tail.line("key hunter2-\u{1b}[1mhunter2");
        for value in ["hunter2-hunter2", "hunter2-\u{1b}[1mhunter2"] {
            tail.line(&format!("{}{value}", "x".repeat(LINE_BYTES_MAX - 7)));
        }
        redactor.replace(Vec::new());
        let shown: Vec<String> =
            logs.lines(&Wanted { lines_max: 10, ..Wanted::default() }).into_iter().map(|line| line.text).collect();
        assert_eq!(shown.len(), 4);
        for text in [shown.join("\n"), tail.last(10)] {
            assert_eq!(text.matches("key [redacted]").count(), 2, "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_secret_that_comes_in_pieces_is_not_kept_either() {
        let redactor = Redactor::default();
        redactor.replace(vec!["hunter2-hunter2".to_owned().into()]);
        let tail = Tail::new(10_000, redactor);
        let mut feed = Feed::to(tail.clone());
        for piece in ["one\ntwo hunter2", "-hunter2 three\n", "four hunter2-h", "unter2"] {
            feed.take(piece.as_bytes());
        }
        assert_eq!(tail.last(10), "one\ntwo [redacted] three");
        drop(feed);
        assert_eq!(tail.last(1), "four [redacted]");
        // At no place of a long line.
        for before in [900, 4090, 8190, WRITTEN_BYTES_MAX - 8] {
            let line = format!("{}hunter2-hunter2{}\n", "x".repeat(before), "y".repeat(9000));
            let mut feed = Feed::to(tail.clone());
            line.as_bytes().chunks(4096).for_each(|piece| feed.take(piece));
        }
        assert!(!tail.last(100).contains("hunter2"));
        assert_eq!(tail.last(100).lines().count(), 7);
    }

    #[test]
    fn colours_and_control_characters_are_taken_out() {
        let tail = Tail::new(1000, Redactor::default());
        tail.line("\u{1b}[31merror\u{1b}[0m\tx\u{7}");
        assert_eq!(tail.last(1), "error x ");
    }
}
