//! Reading a container's log: tail, since, limit, timestamps and following.
//!
//! 1. The rotated files and the current one are read in order; with `tail` a first pass over the files,
//!    from the newest back, finds where the last lines begin.
//! 2. Every line is filtered and stripped of its stamp as asked.
//! 3. At the end of the current file a follower waits for the sink's mark. When the generation moved, the
//!    open file is read to its end (a rename does not close it) before the next one is opened.
//!
//! Invariant: memory is bounded by one read buffer and one line, whatever the size of the log.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::watch;

use super::line;
use super::sink::{LogSink, Mark};

const BUFFER: usize = 64 << 10;

/// What of a log is asked for; the parameters of `kubectl logs`.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Wait for more until the container ends.
    pub follow: bool,
    /// The attempt before the current one.
    pub previous: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Begin every line with its time.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no attempt before the current one.
    #[error("previous terminated container not found")]
    NoPrevious,
    /// The file system failed.
    #[error("read log")]
    Io(#[from] io::Error),
}

/// Pieces of a log as they become available.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Path of the rotated file number `number`, 1 being the newest.
pub(super) fn rotated(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The files of one attempt that exist, oldest first.
pub(super) fn files_of(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = (1..)
        .map(|number| rotated(path, number))
        .take_while(|path| path.exists())
        .collect();
    files.reverse();
    if path.exists() {
        files.push(path.to_owned());
    }
    files
}

/// Opens the log an attempt's query names.
pub(super) async fn open(
    directory: PathBuf,
    live: Option<LogSink>,
    query: LogQuery,
) -> Result<LogStream, ReadError> {
    let attempts = super::attempts(&directory);
    // A live attempt that printed nothing has no file yet.
    let current = match &live {
        Some(sink) => Some(sink.path().clone()),
        None => attempts
            .last()
            .map(|attempt| directory.join(format!("{attempt}.log"))),
    };
    let path = if query.previous {
        let older = attempts
            .iter()
            .rev()
            .map(|attempt| directory.join(format!("{attempt}.log")));
        let mut older = older.filter(|path| Some(path) != current.as_ref());
        Some(older.next().ok_or(ReadError::NoPrevious)?)
    } else {
        current
    };
    let Some(path) = path else {
        return Ok(Box::pin(futures::stream::empty()));
    };
    let follow = query.follow && !query.previous;
    let live = live.filter(|sink| *sink.path() == path);
    let reader = Reader::open(&path, live, follow, query).await?;
    Ok(Box::pin(futures::stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|bytes| (bytes, reader))) },
    )))
}

struct Reader {
    /// Files still to be read, oldest first. They are open already, so a rotation renames but does not
    /// lose them.
    files: VecDeque<File>,
    file: Option<File>,
    /// What is followed, and how far it was opened.
    followed: Option<Followed>,
    query: LogQuery,
    pending: BytesMut,
    left: u64,
}

struct Followed {
    sink: LogSink,
    marks: watch::Receiver<Mark>,
    generation: u64,
}

impl Reader {
    async fn open(
        path: &Path,
        live: Option<LogSink>,
        follow: bool,
        query: LogQuery,
    ) -> io::Result<Self> {
        let (generation, opened) = match &live {
            Some(sink) => {
                let (mark, files) = sink.open_files()?;
                (mark.generation, files)
            }
            None => {
                let files = files_of(path).into_iter().map(std::fs::File::open);
                (0, files.collect::<io::Result<_>>()?)
            }
        };
        let mut files: VecDeque<File> = opened.into_iter().map(File::from_std).collect();
        if let Some(lines) = query.tail_lines {
            seek_tail(&mut files, lines).await?;
        }
        let followed = live.filter(|_| follow);
        let followed = followed.map(|sink| Followed {
            marks: sink.marks(),
            sink,
            generation,
        });
        let left = query.limit_bytes.unwrap_or(u64::MAX);
        let file = files.pop_front();
        Ok(Self {
            files,
            file,
            followed,
            query,
            pending: BytesMut::new(),
            left,
        })
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            if self.read().await? {
                let mut piece = self.take_lines();
                if !piece.is_empty() {
                    piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= piece.len() as u64;
                    return Ok(Some(piece.into()));
                }
            } else if let Some(next) = self.files.pop_front() {
                self.file = Some(next);
            } else if !self.wait().await? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Reads more of the open file; `false` at its end.
    async fn read(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        self.pending.reserve(BUFFER);
        Ok(file.read_buf(&mut self.pending).await? > 0)
    }

    /// Waits for more; `false` when there will be none.
    async fn wait(&mut self) -> io::Result<bool> {
        let Some(followed) = &mut self.followed else {
            return Ok(false);
        };
        let position = match &mut self.file {
            Some(file) => Some(file.stream_position().await?),
            None => None,
        };
        loop {
            let mark = *followed.marks.borrow_and_update();
            let has_more = mark.length > position.unwrap_or(0);
            if mark.generation == followed.generation && has_more && position.is_some() {
                return Ok(true);
            }
            if mark.generation != followed.generation || has_more {
                return self.open_newer();
            }
            if mark.closed || followed.marks.changed().await.is_err() {
                return Ok(false);
            }
        }
    }

    /// The file was rotated, or the first one begun: what was appended to the open one before is read
    /// first.
    fn open_newer(&mut self) -> io::Result<bool> {
        let Some(followed) = &mut self.followed else {
            return Ok(false);
        };
        let (mark, files) = match self.file.take() {
            Some(file) => {
                self.files.push_back(file);
                followed.sink.open_newer(followed.generation)?
            }
            None => followed.sink.open_files()?,
        };
        self.files.extend(files.into_iter().map(File::from_std));
        followed.generation = mark.generation;
        Ok(true)
    }

    /// The whole lines read so far, as the query wants them.
    fn take_lines(&mut self) -> BytesMut {
        let mut piece = BytesMut::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let raw = self.pending.split_to(end + 1);
            let Some(line) = line::parse(raw.get(..end).unwrap_or_default()) else {
                continue;
            };
            if !self.query.wants(line.time) {
                continue;
            }
            if self.query.timestamps {
                piece.extend_from_slice(line.time.as_bytes());
                piece.extend_from_slice(b" ");
            }
            piece.extend_from_slice(line.text);
            if !line.partial {
                piece.extend_from_slice(b"\n");
            }
        }
        piece
    }
}

impl LogQuery {
    fn wants(&self, time: &str) -> bool {
        let Some(since) = self.since else { return true };
        time.parse::<Timestamp>().is_ok_and(|time| time >= since)
    }
}

/// Leaves in `files` only those that hold the last `lines` lines, the first placed where they begin.
async fn seek_tail(files: &mut VecDeque<File>, lines: u64) -> io::Result<()> {
    let mut missing = lines;
    for at in (0..files.len()).rev() {
        let Some(file) = files.get_mut(at) else { break };
        let (offset, found) = tail_offset(file, missing).await?;
        file.seek(SeekFrom::Start(offset)).await?;
        missing -= found;
        if missing == 0 {
            files.drain(..at);
            break;
        }
    }
    Ok(())
}

/// Where the last `lines` lines of a file begin, and how many there are, read backwards in blocks.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<(u64, u64)> {
    let length = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok((length, 0));
    }
    let mut found = 0;
    let mut end = length;
    let mut block = vec![0; BUFFER];
    while end > 0 {
        let start = end.saturating_sub(BUFFER as u64);
        let size = usize::try_from(end - start).unwrap_or(BUFFER);
        let bytes = block.get_mut(..size).unwrap_or_default();
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(bytes).await?;
        for (at, byte) in bytes.iter().enumerate().rev() {
            let position = start + at as u64;
            // The line end at the very end of the file ends the last line; it begins none.
            if *byte == b'\n' && position + 1 < length {
                found += 1;
                if found == lines {
                    return Ok((position + 1, lines));
                }
            }
        }
        end = start;
    }
    Ok((0, found + u64::from(length > 0)))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::super::{LogLimits, Logs, Output};
    use super::*;
    use crate::runtime::PodIdentity;

    fn pod() -> PodIdentity {
        PodIdentity {
            namespace: "default".into(),
            name: "a".into(),
            uid: "1".into(),
        }
    }

    fn logs(directory: &tempfile::TempDir, file_bytes: u64) -> Logs {
        Logs::new(
            directory.path().to_owned(),
            LogLimits {
                file_bytes,
                files: 3,
            },
        )
    }

    async fn text(logs: &Logs, query: LogQuery) -> String {
        let stream = logs.read(&pod(), "c", query).await.unwrap();
        let pieces: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[tokio::test]
    async fn lines_come_back_without_their_stamps() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(&directory, 1 << 20);
        let sink = logs.begin(&pod(), "c", 0);
        sink.write(Output::Stdout, b"one\ntw");
        sink.write(Output::Stderr, b"err\n");
        sink.write(Output::Stdout, b"o\nthree");
        assert_eq!(text(&logs, LogQuery::default()).await, "one\nerr\ntwo\n");
        sink.close();
        assert_eq!(
            text(&logs, LogQuery::default()).await,
            "one\nerr\ntwo\nthree"
        );
    }

    #[tokio::test]
    async fn a_long_line_is_split_and_joined_again() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(&directory, 1 << 20);
        let sink = logs.begin(&pod(), "c", 0);
        let long = "x".repeat(50_000) + "\n";
        sink.write(Output::Stdout, long.as_bytes());
        assert_eq!(text(&logs, LogQuery::default()).await, long);
    }

    #[tokio::test]
    async fn tail_since_limit_and_timestamps_choose_what_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(&directory, 100);
        let sink = logs.begin(&pod(), "c", 0);
        for number in 0..6 {
            sink.write(Output::Stdout, format!("line {number}\n").as_bytes());
        }
        let tail = |lines| LogQuery {
            tail_lines: Some(lines),
            ..LogQuery::default()
        };
        assert_eq!(text(&logs, tail(0)).await, "");
        assert_eq!(text(&logs, tail(3)).await, "line 3\nline 4\nline 5\n");
        assert_eq!(text(&logs, tail(99)).await.lines().count(), 6);
        let limited = LogQuery {
            limit_bytes: Some(8),
            ..LogQuery::default()
        };
        assert_eq!(text(&logs, limited).await, "line 0\nl");
        let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let since = LogQuery {
            since: Some(later),
            ..LogQuery::default()
        };
        assert_eq!(text(&logs, since).await, "");
        let stamped = LogQuery {
            timestamps: true,
            tail_lines: Some(1),
            ..LogQuery::default()
        };
        let stamped = text(&logs, stamped).await;
        let (time, rest) = stamped.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok());
        assert_eq!(rest, "line 5\n");
    }

    #[tokio::test]
    async fn rotation_keeps_the_newest_files_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(&directory, 100);
        let sink = logs.begin(&pod(), "c", 0);
        for number in 0..20 {
            sink.write(Output::Stdout, format!("line {number}\n").as_bytes());
        }
        let shown = text(&logs, LogQuery::default()).await;
        assert!(shown.ends_with("line 18\nline 19\n"), "{shown}");
        assert!(!shown.contains("line 0\n"));
        let numbers: Vec<u32> = shown
            .lines()
            .map(|line| line.trim_start_matches("line ").parse().unwrap())
            .collect();
        assert!(numbers.is_sorted());
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_across_rotations_and_ends_with_the_container() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(
            directory.path().to_owned(),
            LogLimits {
                file_bytes: 200,
                files: 60,
            },
        );
        let sink = logs.begin(&pod(), "c", 0);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let following = tokio::spawn({
            let logs = logs.clone();
            async move { text(&logs, query).await }
        });
        for number in 0..100 {
            sink.write(Output::Stdout, format!("line {number}\n").as_bytes());
            tokio::task::yield_now().await;
        }
        sink.close();
        let shown = following.await.unwrap();
        let want: String = (0..100).map(|number| format!("line {number}\n")).collect();
        assert_eq!(shown, want);
    }

    #[tokio::test]
    async fn the_previous_attempt_is_kept_and_older_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(&directory, 1 << 20);
        let previous = LogQuery {
            previous: true,
            ..LogQuery::default()
        };
        assert!(matches!(
            logs.read(&pod(), "c", previous.clone()).await,
            Err(ReadError::NoPrevious)
        ));
        for attempt in 0..3 {
            let sink = logs.begin(&pod(), "c", attempt);
            sink.write(Output::Stdout, format!("attempt {attempt}\n").as_bytes());
            sink.close();
        }
        assert_eq!(text(&logs, LogQuery::default()).await, "attempt 2\n");
        assert_eq!(text(&logs, previous).await, "attempt 1\n");
        assert_eq!(logs.attempts(&pod(), "c"), [1, 2]);
    }
}
