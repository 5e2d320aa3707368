//! The sizes of a client's terminal: JSON values one after another, as the resize stream carries them.

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use windlass_api::stream::remote_command::TerminalSize;

use super::remote_command::Pipe;

/// Longer than any size is written; a client that sends more says nothing.
const MAX: usize = 1024;

/// Reads sizes from a stream.
pub(super) struct Sizes {
    from: Option<Pipe>,
    read: BytesMut,
}

impl Sizes {
    /// Those of a client that may have none.
    pub(super) fn new(from: Option<Pipe>) -> Self {
        Self {
            from,
            read: BytesMut::new(),
        }
    }

    /// The next size; `None` when there will be none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<TerminalSize> {
        let from = self.from.as_mut()?;
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.read).into_iter();
            if let Some(Ok(size)) = values.next() {
                let used = values.byte_offset();
                drop(self.read.split_to(used));
                return Some(size);
            }
            // An error means that the client is gone.
            let length = from.read_buf(&mut self.read).await.unwrap_or(0);
            if length == 0 || self.read.len() > MAX {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn sizes_come_in_pieces_and_end() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut sizes = Sizes::new(Some(Box::new(server)));
        client
            .write_all(b"{\"Width\":80,\"Height\":24}\n{\"Width\":")
            .await
            .unwrap();
        let wanted = |width, height| Some(TerminalSize { width, height });
        assert_eq!(sizes.next().await, wanted(80, 24));
        client.write_all(b"100,\"Height\":50}").await.unwrap();
        assert_eq!(sizes.next().await, wanted(100, 50));
        drop(client);
        assert_eq!(sizes.next().await, None);
        assert_eq!(Sizes::new(None).next().await, None);
    }
}
