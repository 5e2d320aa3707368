//! The termination message: what a container leaves behind about why it ended.
//!
//! Spec: the file's first 4096 bytes; with policy `FallbackToLogsOnError` and an empty file, the end of the
//! log of a container that failed: at most 80 lines and 2048 bytes.

use std::path::PathBuf;

use futures::StreamExt;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::logs::{LogQuery, Logs};
use crate::runtime::{ExitStatus, PodIdentity};

const MAX_FILE: u64 = 4096;
const MAX_LOG_LINES: u64 = 80;
const MAX_LOG: usize = 2048;

/// Where the message of one container may be.
pub(super) struct Source<'a> {
    pub(super) file: PathBuf,
    pub(super) logs: &'a Logs,
    pub(super) pod: &'a PodIdentity,
    pub(super) container: &'a str,
}

impl Source<'_> {
    /// The message, if the container left one.
    pub(super) async fn message(self, exit: &ExitStatus, policy: Option<&str>) -> Option<String> {
        let from_file = self.read_file().await;
        let falls_back = policy == Some("FallbackToLogsOnError") && exit.exit_code != 0;
        match from_file {
            None if falls_back => self.read_log().await,
            found => found,
        }
    }

    async fn read_file(&self) -> Option<String> {
        let mut bytes = Vec::new();
        // The guest decides how long the file is; only its start is read.
        let file = File::open(&self.file).await.ok()?;
        file.take(MAX_FILE).read_to_end(&mut bytes).await.ok()?;
        text(&bytes)
    }

    async fn read_log(&self) -> Option<String> {
        let query = LogQuery {
            tail_lines: Some(MAX_LOG_LINES),
            ..LogQuery::default()
        };
        let mut pieces = self.logs.read(self.pod, self.container, query).await.ok()?;
        let mut end = Vec::new();
        while let Some(Ok(piece)) = pieces.next().await {
            end.extend_from_slice(&piece);
            end.drain(..end.len().saturating_sub(MAX_LOG));
        }
        text(&end)
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}
