//! An http component that does what the path says.
//!
//! | path | answer |
//! |---|---|
//! | `/` | `hello` and how many requests this instance has served |
//! | `/echo` | the request's body |
//! | `/env/NAME` | an environment variable |
//! | `/api?PATH` | the status and body of a GET to the cluster's API, as the pod's account |
//! | `/file?PATH` | a file |
//! | `/get?URL` | the status and body of an outgoing request, or its error code |
//! | `/many/N` | N lines |
//! | `/half` | a response that breaks off in the middle |
//! | `/trap`, `/spin`, `/silent` | none |

use std::cell::Cell;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Web;

wasip2::http::proxy::export!(Web);

thread_local! {
    static SERVED: Cell<usize> = const { Cell::new(0) };
}

impl wasip2::exports::http::incoming_handler::Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        SERVED.set(SERVED.get() + 1);
        let path = request.path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts.as_slice() {
            [""] => respond(out, 200, &[&format!("hello {}", SERVED.get())]),
            ["echo"] => echo(&request, out),
            ["env", name] => {
                respond(
                    out,
                    200,
                    &[&std::env::var(name).unwrap_or_else(|_| "unset".to_owned())],
                );
            }
            ["api"] => match api(query) {
                Ok(text) => respond(out, 200, &[&text]),
                Err(text) => respond(out, 502, &[&text]),
            },
            ["file"] => match std::fs::read_to_string(query) {
                Ok(text) => respond(out, 200, &[&text]),
                Err(error) => respond(out, 404, &[&error.to_string()]),
            },
            ["get"] => match get(query, Fields::new()) {
                Ok(text) => respond(out, 200, &[&text]),
                Err(text) => respond(out, 502, &[&text]),
            },
            ["many", count] => {
                let lines = (0..count.parse().unwrap_or(0)).map(|n| format!("line {n}\n"));
                let lines: Vec<String> = lines.collect();
                respond(
                    out,
                    200,
                    &lines.iter().map(String::as_str).collect::<Vec<_>>(),
                );
            }
            ["half"] => {
                let body = start(out, 200);
                let stream = body.write().expect("a new body has a stream");
                write(&stream, b"half of the ans").expect("the client reads");
                panic!("asked to");
            }
            ["grpc.health.v1.Health", "Check"] => serving(out),
            ["trap"] => panic!("asked to"),
            ["spin"] => loop {
                std::hint::spin_loop();
            },
            ["silent"] => {}
            _ => respond(out, 404, &["no such path"]),
        }
    }
}

fn start(out: ResponseOutparam, status: u16) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("a new response has a body");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn respond(out: ResponseOutparam, status: u16, chunks: &[&str]) {
    let body = start(out, status);
    let stream = body.write().expect("a new body has a stream");
    for chunk in chunks {
        if write(&stream, chunk.as_bytes()).is_err() {
            return;
        }
    }
    drop(stream);
    let _gone = OutgoingBody::finish(body, None);
}

/// The answer of a gRPC health service that is well: a message with `status: SERVING`, and the call's status after it.
fn serving(out: ResponseOutparam) {
    let headers = Fields::new();
    let set = |fields: &Fields, name: &str, value: &[u8]| {
        fields.set(name, &[value.to_vec()]).expect("a valid field");
    };
    set(&headers, "content-type", b"application/grpc");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("a new response has a body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a new body has a stream");
    let written = write(&stream, &[0, 0, 0, 0, 2, 8, 1]);
    drop(stream);
    if written.is_ok() {
        let trailers = Fields::new();
        set(&trailers, "grpc-status", b"0");
        let _gone = OutgoingBody::finish(body, Some(trailers));
    }
}

fn write(stream: &OutputStream, mut data: &[u8]) -> Result<(), StreamError> {
    while !data.is_empty() {
        let (now, later) = data.split_at(data.len().min(4096));
        stream.blocking_write_and_flush(now)?;
        data = later;
    }
    Ok(())
}

fn read(stream: &InputStream, mut each: impl FnMut(&[u8])) -> Result<(), StreamError> {
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(data) => each(&data),
            Err(StreamError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().expect("the body is there once");
    let input = incoming.stream().expect("the stream is there once");
    let body = start(out, 200);
    let output = body.write().expect("a new body has a stream");
    let copied = read(&input, |data| {
        let _gone = write(&output, data);
    });
    drop((input, output));
    if copied.is_ok() {
        let _gone = OutgoingBody::finish(body, None);
    }
}

/// A path of the API fetched, with what clients of the API look for in their pod.
fn api(path: &str) -> Result<String, String> {
    const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = std::fs::read_to_string(TOKEN).map_err(|error| format!("{TOKEN}: {error}"))?;
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("no {name}"));
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let headers = Fields::new();
    let bearer = format!("Bearer {token}").into_bytes();
    headers
        .set("authorization", &[bearer])
        .map_err(|error| format!("{error:?}"))?;
    get(&format!("https://{host}:{port}{path}"), headers)
}

/// `http://host:port/path` fetched; an error is its code's name.
fn get(url: &str, headers: Fields) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a url")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(headers);
    let scheme = if scheme == "https" {
        Scheme::Https
    } else {
        Scheme::Http
    };
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request
        .set_authority(Some(authority))
        .map_err(|()| "authority")?;
    request
        .set_path_with_query(Some(&format!("/{path}")))
        .map_err(|()| "path")?;
    let future = outgoing_handler::handle(request, None).map_err(|code| format!("{code:?}"))?;
    let response = loop {
        match future.get() {
            Some(Ok(result)) => break result.map_err(|code| format!("{code:?}"))?,
            Some(Err(())) => return Err("taken twice".to_owned()),
            None => future.subscribe().block(),
        }
    };
    body_of(&response)
}

fn body_of(response: &IncomingResponse) -> Result<String, String> {
    let body: IncomingBody = response.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut text = Vec::new();
    read(&stream, |data| text.extend_from_slice(data)).map_err(|error| format!("{error:?}"))?;
    Ok(format!(
        "{} {}",
        response.status(),
        String::from_utf8_lossy(&text)
    ))
}
