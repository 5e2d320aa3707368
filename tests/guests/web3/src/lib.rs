//! An http component of WASI 0.3: it answers `hello from 0.3` in two parts.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_future, wit_stream};

struct Web;

wasip3::http::service::export!(Web);

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let (mut writer, body) = wit_stream::new();
        let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
        wasip3::spawn_local(async move {
            writer.write_all(b"hello ".to_vec()).await;
            writer.write_all(b"from 0.3".to_vec()).await;
            drop(writer);
            let _gone = trailers.write(Ok(None)).await;
        });
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers_reader);
        Ok(response)
    }
}
