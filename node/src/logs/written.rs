//! A log whose file another process writes in the same format: containerd, for containers of Linux.
//!
//! 1. Who watches the file calls [`WrittenLog::catch_up`] when it has grown: followers are woken, and those who attached
//!    hear the lines.
//! 2. At the size where a file is rotated its names move ([`WrittenLog::rename`]), the writer is told to open it anew, and
//!    then the new generation begins ([`WrittenLog::begin`]): not before, since the writer wrote to the old file until
//!    then.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::line;
use super::sink::{LogSink, Output};

/// Most of a file that is read at once, for those who attached.
const MAX_READ: u64 = 1 << 20;

/// The log of one attempt of a container, as far as it was written.
#[derive(Debug)]
pub(crate) struct WrittenLog {
    sink: LogSink,
    file: Option<File>,
    /// Bytes that those who attached have heard.
    told: u64,
    /// Whether they hear the lines; else they hear the container's streams themselves.
    tells: bool,
    /// The begin of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl WrittenLog {
    /// The log behind a sink. With `tells`, those who attach to the sink hear the lines.
    pub(crate) fn new(sink: LogSink, tells: bool) -> Self {
        Self {
            sink,
            file: None,
            told: 0,
            tells,
            rest: Vec::new(),
        }
    }

    /// The directory of the file.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.sink.path().parent().map(Path::to_owned)
    }

    /// Takes notice of what was written since; answers whether the file is to be rotated.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) fn catch_up(&mut self) -> io::Result<bool> {
        let length = self.length()?;
        if length > self.told {
            self.tell(length)?;
            self.sink.advance(length);
        }
        Ok(length >= self.sink.limits().file_bytes)
    }

    fn length(&mut self) -> io::Result<u64> {
        if self.file.is_none() {
            match File::open(self.sink.path()) {
                Ok(file) => self.file = Some(file),
                // Nothing was printed yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        let file = self.file.as_ref();
        file.map_or(Ok(0), |file| file.metadata().map(|found| found.len()))
    }

    fn tell(&mut self, length: u64) -> io::Result<()> {
        let from = std::mem::replace(&mut self.told, length);
        if !self.tells || !self.sink.is_attached() {
            self.rest.clear();
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        // Whoever is that far behind misses what is between.
        let from = from.max(length.saturating_sub(MAX_READ));
        file.seek(SeekFrom::Start(from))?;
        file.take(length - from).read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n');
        let rest = self.rest.split_off(whole.map_or(0, |end| end + 1));
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in lines.split(|byte| *byte == b'\n') {
            if let Some(line) = line::parse(line) {
                let mut text = line.text.to_vec();
                if !line.partial {
                    text.push(b'\n');
                }
                self.sink.tell(line.output, &text);
            }
        }
        Ok(())
    }

    /// Moves the names of the files on by one, so that the writer can begin another.
    ///
    /// # Errors
    /// The file system failed.
    pub(crate) fn rename(&self) -> io::Result<()> {
        self.sink.rotate()
    }

    /// Goes on with the file that the writer has begun. Who opens the log between this and [`WrittenLog::rename`] may see
    /// lines of that moment twice.
    ///
    /// # Errors
    /// What was written last to the old file can't be read.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        self.catch_up()?;
        self.sink.begin_generation();
        (self.file, self.told) = (None, 0);
        self.rest.clear();
        self.catch_up().map(drop)
    }

    /// What the container prints, in the words of its own streams, to those who attached.
    pub(crate) fn print(&self, output: Output, bytes: &[u8]) {
        self.sink.tell(output, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;

    use super::*;
    use crate::logs::LogLimits;

    const LINE: &str = "2026-01-02T03:04:05.000000006Z stdout F ";

    #[tokio::test]
    async fn lines_of_another_writer_are_heard_and_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let limits = LogLimits {
            file_bytes: 150,
            files: 3,
        };
        let sink = LogSink::new(path.clone(), limits);
        let mut log = WrittenLog::new(sink.clone(), true);
        assert!(!log.catch_up().unwrap());
        let mut live = sink.live().unwrap();
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        write!(file, "{LINE}one\n{LINE}tw").unwrap();
        assert!(!log.catch_up().unwrap());
        writeln!(file, "o").unwrap();
        assert!(!log.catch_up().unwrap());
        for wanted in ["one\n", "two\n"] {
            let (output, text) = live.next().await.unwrap();
            assert_eq!((output, text), (Output::Stdout, Bytes::from(wanted)));
        }
        writeln!(file, "{LINE}{}", "x".repeat(100)).unwrap();
        assert!(log.catch_up().unwrap());
        assert_eq!(live.next().await.unwrap().1.len(), 101);
        log.rename().unwrap();
        // The writer has not heard of it yet.
        writeln!(file, "{LINE}late").unwrap();
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        writeln!(file, "{LINE}new").unwrap();
        log.begin().unwrap();
        assert_eq!(live.next().await.unwrap().1, Bytes::from("late\n"));
        assert_eq!(live.next().await.unwrap().1, Bytes::from("new\n"));
        assert!(dir.path().join("0.log.1").exists());
    }
}
