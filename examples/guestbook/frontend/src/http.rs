//! Requests and responses as this program sees them, from and to `wasi:http`.

use std::io::{self, Read, Write};

use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// Longest body of a request, in bytes.
const LONGEST: usize = 1000;

/// What of a request matters here.
pub struct Request {
    pub method: Method,
    /// Without the query.
    pub path: String,
    /// Empty where there is none.
    pub content_type: String,
    /// Empty where there is none.
    pub bearer_token: String,
    pub body: String,
}

impl Request {
    /// Reads the whole request; an error is a body that is too long or breaks off.
    pub fn read(request: &IncomingRequest) -> io::Result<Self> {
        let target = request.path_with_query().unwrap_or_default();
        let headers = request.headers();
        let header = |name: &str| {
            let value = headers.get(name).into_iter().next().unwrap_or_default();
            String::from_utf8_lossy(&value).into_owned()
        };
        let authorization = header("authorization");
        Ok(Self {
            method: request.method(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            content_type: header("content-type"),
            bearer_token: authorization
                .strip_prefix("Bearer ")
                .unwrap_or_default()
                .to_owned(),
            body: body(request)?,
        })
    }
}

fn body(request: &IncomingRequest) -> io::Result<String> {
    let failed = |()| io::Error::other("the host has no body for this request");
    let body = request.consume().map_err(failed)?;
    let stream = body.stream().map_err(failed)?;
    let mut bytes = Vec::new();
    stream.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::other(format!(
            "the body is longer than {LONGEST} bytes"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An answer with a whole body.
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Response {
    /// Plain text.
    pub fn text(status: u16, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/plain; charset=utf-8")],
            body,
        }
    }

    /// A page.
    pub fn html(body: String) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "text/html; charset=utf-8")],
            body,
        }
    }

    /// Sends a browser on after a form.
    pub fn see_other(location: &'static str) -> Self {
        Self {
            status: 303,
            headers: vec![("location", location)],
            body: String::new(),
        }
    }

    /// Hands the response to the host.
    pub fn send(self, out: ResponseOutparam) -> io::Result<()> {
        let failed = |()| io::Error::other("the host refused the response");
        let headers: Vec<_> = self
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .collect();
        let headers = Fields::from_list(&headers).map_err(io::Error::other)?;
        let response = OutgoingResponse::new(headers);
        response.set_status_code(self.status).map_err(failed)?;
        let body = response.body().map_err(failed)?;
        ResponseOutparam::set(out, Ok(response));
        // A block, because the stream must be gone before its body is finished.
        {
            let mut stream = body.write().map_err(failed)?;
            stream.write_all(self.body.as_bytes())?;
            stream.blocking_flush().map_err(io::Error::other)?;
        }
        OutgoingBody::finish(body, None).map_err(io::Error::other)
    }
}
