//! A web app that greets and says which pod it is.
//!
//! The component exports `wasi:http/incoming-handler`: the node listens on the container's port and
//! calls [`Guest::handle`] once per request, in an instance that exists for that request alone. What
//! it prints is the pod's log.

use std::io::{self, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// Change it, run `examples/build hello` and `windlass apply -f examples/hello`: it rolls out.
const GREETING: &str = "Hello from";

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let (status, text) = answer(path);
        if path != "/healthz" {
            println!("{path} {status}");
        }
        if let Err(error) = respond(out, status, &text) {
            eprintln!("{path}: {error}");
        }
    }
}

fn answer(path: &str) -> (u16, String) {
    match path {
        "/" => (200, format!("{GREETING} {}\n", pod_name())),
        "/healthz" => (200, "ok\n".to_owned()),
        _ => (404, format!("no page at {path}\n")),
    }
}

/// The Deployment sets POD_NAME from the pod's own metadata.
fn pod_name() -> String {
    std::env::var("POD_NAME").unwrap_or_else(|_| "a pod without a name".to_owned())
}

fn respond(out: ResponseOutparam, status: u16, text: &str) -> io::Result<()> {
    let failed = |()| io::Error::other("the host refused the response");
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).map_err(failed)?;
    let body = response.body().map_err(failed)?;
    ResponseOutparam::set(out, Ok(response));
    // A block, because the stream must be gone before its body is finished.
    {
        let mut stream = body.write().map_err(failed)?;
        stream.write_all(text.as_bytes())?;
        stream.blocking_flush().map_err(io::Error::other)?;
    }
    OutgoingBody::finish(body, None).map_err(io::Error::other)
}
