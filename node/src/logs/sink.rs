//! Where a runtime writes what a container prints, and where those who attach hear it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::LogLimits;
use super::line::{self, MAX_TEXT};

/// Which of the two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    /// The name in log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Writes that may wait for one who attached; what is behind is skipped.
const MAX_BEHIND: usize = 64;

/// What a container prints from now on, as it prints it.
///
/// Differs from Kubernetes: a guest never waits for who attached to it. One that reads slower than the
/// guest writes misses output instead of stopping the guest.
#[derive(Debug)]
pub struct LiveOutput(broadcast::Receiver<(Output, Bytes)>);

impl LiveOutput {
    /// The next write; `None` when the container has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Output, Bytes)> {
        loop {
            match self.0.recv().await {
                Ok(written) => return Some(written),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// How far a log was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// How often the file was rotated.
    pub(super) generation: u64,
    /// Bytes in the current file.
    pub(super) length: u64,
    /// Nothing will be written any more.
    pub(super) closed: bool,
}

/// Takes a container's output; cheap to clone. A write goes to the page cache and returns.
///
/// A disk that refuses a write loses the line, with a warning in the agent's own log: a guest must not
/// fail because its log can't be kept.
#[derive(Clone, Debug)]
pub struct LogSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    limits: LogLimits,
    state: Mutex<State>,
    mark: watch::Sender<Mark>,
}

#[derive(Debug, Default)]
struct State {
    /// Opened at the first line: an idle container costs no descriptor.
    file: Option<File>,
    mark: Mark,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    buffer: Vec<u8>,
    failed: bool,
    /// Those who attached; made for the first of them.
    live: Option<broadcast::Sender<(Output, Bytes)>>,
}

impl LogSink {
    pub(super) fn new(path: PathBuf, limits: LogLimits) -> Self {
        let mark = watch::Sender::new(Mark::default());
        Self(Arc::new(Inner {
            path,
            limits,
            state: Mutex::default(),
            mark,
        }))
    }

    /// A sink that keeps nothing; for containers nobody asks the logs of.
    #[must_use]
    pub fn discard() -> Self {
        let sink = Self::new(PathBuf::new(), LogLimits::default());
        sink.state().mark.closed = true;
        sink
    }

    /// Writes bytes of one stream; lines need not be whole.
    pub fn write(&self, output: Output, bytes: &[u8]) {
        let mut state = self.state();
        if state.mark.closed {
            return;
        }
        state.tell(output, bytes);
        state.take(output, bytes);
        self.flush(&mut state);
    }

    /// Ends the log: what has no line end yet is written as it is, and readers that follow stop.
    pub fn close(&self) {
        let mut state = self.state();
        if state.mark.closed {
            return;
        }
        state.take_rest();
        self.flush(&mut state);
        state.mark.closed = true;
        state.file = None;
        state.live = None;
        self.0.mark.send_replace(state.mark);
    }

    /// What is written from now on; `None` if the log has ended.
    #[must_use]
    pub fn live(&self) -> Option<LiveOutput> {
        let mut state = self.state();
        if state.mark.closed {
            return None;
        }
        let begin = || broadcast::Sender::new(MAX_BEHIND);
        let live = state.live.get_or_insert_with(begin);
        Some(LiveOutput(live.subscribe()))
    }

    /// The files that exist, oldest first, and the mark that belongs to them.
    ///
    /// Opened under the writer's lock: a rotation in between would show a file twice or not at all.
    pub(super) fn open_files(&self) -> io::Result<(Mark, Vec<File>)> {
        let state = self.state();
        let files = super::read::files_of(&self.0.path)
            .into_iter()
            .map(File::open);
        Ok((state.mark, files.collect::<io::Result<_>>()?))
    }

    /// The files begun after `generation`, oldest first, as far as they are still kept.
    pub(super) fn open_newer(&self, generation: u64) -> io::Result<(Mark, Vec<File>)> {
        let state = self.state();
        let newer = usize::try_from(state.mark.generation - generation).unwrap_or(usize::MAX);
        let mut paths = super::read::files_of(&self.0.path);
        let files = paths
            .split_off(paths.len().saturating_sub(newer))
            .into_iter()
            .map(File::open);
        Ok((state.mark, files.collect::<io::Result<_>>()?))
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.0.path
    }

    pub(super) fn marks(&self) -> watch::Receiver<Mark> {
        self.0.mark.subscribe()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the formatted lines into the file, then the mark.
    fn flush(&self, state: &mut State) {
        if state.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut state.buffer);
        match self.append(state, &buffer) {
            Ok(()) => state.failed = false,
            Err(error) if !state.failed => {
                state.failed = true;
                tracing::warn!(path = %self.0.path.display(), %error, "log lines are lost");
            }
            Err(_) => {}
        }
        state.buffer = buffer;
        state.buffer.clear();
        state.buffer.shrink_to(MAX_TEXT);
        self.0.mark.send_replace(state.mark);
    }

    fn append(&self, state: &mut State, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if state.mark.length > 0 && state.mark.length + length > self.0.limits.file_bytes {
            state.file = None;
            self.rotate()?;
            state.mark.generation += 1;
            state.mark.length = 0;
        }
        if state.file.is_none() {
            let file = self.open()?;
            // An earlier process may have begun this file.
            state.mark.length = file.metadata()?.len();
            state.file = Some(file);
        }
        if let Some(file) = &mut state.file {
            file.write_all(bytes)?;
            state.mark.length += length;
        }
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        if let Some(directory) = self.0.path.parent() {
            fs::create_dir_all(directory)?;
        }
        File::options().create(true).append(true).open(&self.0.path)
    }

    /// Moves the names of the files on by one.
    pub(super) fn rotate(&self) -> io::Result<()> {
        let kept = self.0.limits.files.saturating_sub(1);
        for number in (1..=kept).rev() {
            let from = if number == 1 {
                self.0.path.clone()
            } else {
                super::read::rotated(&self.0.path, number - 1)
            };
            match fs::rename(from, super::read::rotated(&self.0.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if kept == 0 {
            fs::remove_file(&self.0.path)
        } else {
            Ok(())
        }
    }
}

/// What `written.rs` needs: another process writes the file.
#[cfg(feature = "containerd")]
impl LogSink {
    pub(super) fn limits(&self) -> LogLimits {
        self.0.limits
    }

    /// Another process has written the file, up to this length.
    pub(super) fn advance(&self, length: u64) {
        let mut state = self.state();
        state.mark.length = length;
        self.0.mark.send_replace(state.mark);
    }

    /// Another process has begun a new file.
    pub(super) fn begin_generation(&self) {
        let mut state = self.state();
        state.mark.generation += 1;
        state.mark.length = 0;
        self.0.mark.send_replace(state.mark);
    }

    /// Whether anybody hears what is printed.
    pub(super) fn is_attached(&self) -> bool {
        let state = self.state();
        let live = state.live.as_ref();
        live.is_some_and(|live| live.receiver_count() > 0)
    }

    /// What is printed, to those who attached; the file is not written.
    pub(super) fn tell(&self, output: Output, bytes: &[u8]) {
        self.state().tell(output, bytes);
    }
}

impl State {
    fn tell(&self, output: Output, bytes: &[u8]) {
        if let Some(live) = &self.live
            && live.receiver_count() > 0
        {
            // An error means that the last of them has just left.
            let _left = live.send((output, Bytes::copy_from_slice(bytes)));
        }
    }

    fn take(&mut self, output: Output, mut bytes: &[u8]) {
        let time = Timestamp::now();
        let Self {
            stdout,
            stderr,
            buffer,
            ..
        } = self;
        let pending = match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        };
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (text, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if pending.is_empty() && text.len() <= MAX_TEXT {
                line::format(buffer, time, output, false, text);
                continue;
            }
            pending.extend_from_slice(text);
            split_long(buffer, time, output, pending);
            line::format(buffer, time, output, false, pending);
            pending.clear();
        }
        pending.extend_from_slice(bytes);
        split_long(buffer, time, output, pending);
    }

    fn take_rest(&mut self) {
        let time = Timestamp::now();
        let Self {
            stdout,
            stderr,
            buffer,
            ..
        } = self;
        for (output, pending) in [(Output::Stdout, stdout), (Output::Stderr, stderr)] {
            if !pending.is_empty() {
                line::format(buffer, time, output, true, pending);
                pending.clear();
            }
        }
    }
}

/// Writes all but the last `MAX_TEXT` bytes of a line that got too long.
fn split_long(buffer: &mut Vec<u8>, time: Timestamp, output: Output, pending: &mut Vec<u8>) {
    let mut start = 0;
    while pending.len() - start > MAX_TEXT {
        let part = pending.get(start..start + MAX_TEXT).unwrap_or_default();
        line::format(buffer, time, output, true, part);
        start += MAX_TEXT;
    }
    pending.drain(..start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_attaches_hears_what_is_printed_from_then_on_until_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let sink = LogSink::new(directory.path().join("0.log"), LogLimits::default());
        sink.write(Output::Stdout, b"before\n");
        let mut live = sink.live().unwrap();
        sink.write(Output::Stderr, b"no line");
        sink.close();
        let heard = live.next().await;
        assert_eq!(
            heard,
            Some((Output::Stderr, Bytes::from_static(b"no line")))
        );
        assert_eq!(live.next().await, None);
        assert!(sink.live().is_none());
    }
}
