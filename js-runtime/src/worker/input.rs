//! What a worker is told.

use std::{
    io::{self, BufRead as _},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{buffer::spare_capacity, io::Errno};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, time::Instant};

use crate::patience::Patience;

/// What a pipe holds.
const PIPE_BYTES: usize = 64 << 10;

/// After a longer line its memory is given back.
const KEPT_BYTES: usize = 1 << 20;

/// How long the thread does nothing but look whether something has come, before the engine has its turn again.
const LOOK: Duration = Duration::from_micros(20);

/// Standard input, line by line.
pub(super) struct Input {
    pipe: pipe::Receiver,
    read: Vec<u8>,
    /// How much of it has been given out.
    given: usize,
    /// How far it has been searched for the end of a line after that.
    searched: usize,
}

impl Input {
    pub(super) fn new() -> io::Result<Self> {
        Self::of(rustix::io::dup(rustix::stdio::stdin())?)
    }

    fn of(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: pipe::Receiver::from_owned_fd(pipe)?, read: Vec::new(), given: 0, searched: 0 })
    }

    /// The next line; `None` when there is none any more. Dropping this loses nothing.
    pub(super) async fn line(&mut self, patience: &mut Patience) -> io::Result<Option<&[u8]>> {
        let begun = Instant::now();
        while !self.has_line() {
            self.make_room();
            let bytes = if patience.lasts(begun.elapsed()) {
                tokio::task::yield_now().await;
                self.look()?
            } else {
                Some(self.pipe.read_buf(&mut self.read).await?)
            };
            if bytes == Some(0) {
                return Ok(None);
            }
        }
        patience.waited(begun.elapsed());
        let line = &self.read[self.given..self.searched];
        self.given = self.searched;
        Ok(Some(line))
    }

    /// Looks for what has come, and reads it; how many bytes.
    fn look(&mut self) -> io::Result<Option<usize>> {
        let begun = Instant::now();
        while begun.elapsed() < LOOK {
            match rustix::io::read(&self.pipe, spare_capacity(&mut self.read)) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Whether what was read holds another line, up to where it is searched.
    fn has_line(&mut self) -> bool {
        let found = (&self.read[self.searched..]).skip_until(b'\n');
        self.searched += found.unwrap_or_default();
        self.searched > self.given && self.read[self.searched - 1] == b'\n'
    }

    fn make_room(&mut self) {
        self.read.drain(..self.given);
        self.searched -= self.given;
        self.given = 0;
        if self.read.is_empty() && self.read.capacity() > KEPT_BYTES {
            self.read = Vec::new();
        }
        self.read.reserve(PIPE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread};

    use super::*;

    fn awake() -> Patience {
        Patience::new(Duration::from_secs(60), Duration::MAX)
    }

    fn asleep() -> Patience {
        Patience::new(Duration::ZERO, Duration::ZERO)
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_written() {
        let long = "x".repeat(3 * KEPT_BYTES);
        for mut patience in [awake(), asleep()] {
            let (pipe, mut writer) = io::pipe().unwrap();
            let mut input = Input::of(pipe.into()).unwrap();
            let pieces = ["on", "e\ntwo\n\nth", "ree\n", &long, "\n", "last\nno end"].map(ToOwned::to_owned);
            let writing =
                thread::spawn(move || pieces.iter().for_each(|piece| writer.write_all(piece.as_bytes()).unwrap()));
            for expected in ["one", "two", "", "three", &long, "last"] {
                let line = input.line(&mut patience).await.unwrap().unwrap();
                assert_eq!(line.strip_suffix(b"\n"), Some(expected.as_bytes()));
            }
            assert_eq!(input.line(&mut patience).await.unwrap(), None);
            writing.join().unwrap();
        }
    }

    #[tokio::test]
    async fn the_rest_of_the_thread_goes_on_while_a_line_is_awaited() {
        for mut patience in [awake(), asleep()] {
            let (pipe, mut writer) = io::pipe().unwrap();
            let mut input = Input::of(pipe.into()).unwrap();
            let (line, ()) = tokio::join!(input.line(&mut patience), async {
                tokio::task::yield_now().await;
                writer.write_all(b"now\n").unwrap();
            });
            assert_eq!(line.unwrap().unwrap(), b"now\n");
        }
    }

    #[tokio::test]
    async fn the_memory_of_a_long_line_is_given_back() {
        let (pipe, mut writer) = io::pipe().unwrap();
        let mut input = Input::of(pipe.into()).unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&vec![b'x'; 4 * KEPT_BYTES]).unwrap();
            writer.write_all(b"\nshort\n").unwrap();
        });
        assert_eq!(input.line(&mut asleep()).await.unwrap().unwrap().len(), 4 * KEPT_BYTES + 1);
        input.line(&mut asleep()).await.unwrap();
        input.line(&mut asleep()).await.unwrap();
        assert!(input.read.capacity() <= KEPT_BYTES, "{} bytes are kept", input.read.capacity());
        writing.join().unwrap();
    }
}
