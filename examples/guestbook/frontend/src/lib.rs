//! The pages of a guestbook whose entries a backend keeps.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /entries` | the entries as text, a line each |
//! | `POST /entries` | adds the body as an entry; a form's field `text` likewise, and back to the page |
//! | `DELETE /entries` | removes all, with `Authorization: Bearer TOKEN` |
//! | `GET /healthz` | `ok` |
//!
//! `handle` reads the request, [`route`] decides, [`backend`] asks over TCP, [`page`] renders. Each
//! request has an instance of its own, so nothing is kept between them: the title and the token are
//! read anew, and a changed Secret counts from the next request on.

mod backend;
mod form;
mod http;
mod page;

use std::io;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

use crate::http::{Request, Response};

struct Frontend;

wasip2::http::proxy::export!(Frontend);

impl Guest for Frontend {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let request = Request::read(&request);
        let response = match &request {
            Ok(request) => route(request).unwrap_or_else(|error| {
                eprintln!("{}: {error}", request.path);
                Response::text(502, format!("{error}\n"))
            }),
            Err(error) => Response::text(413, format!("{error}\n")),
        };
        if let Err(error) = response.send(out) {
            eprintln!("response: {error}");
        }
    }
}

fn route(request: &Request) -> io::Result<Response> {
    match (&request.method, request.path.as_str()) {
        (Method::Get, "/") => Ok(Response::html(page::render(&title(), &backend::list()?))),
        (Method::Get, "/healthz") => Ok(Response::text(200, "ok\n".to_owned())),
        (Method::Get, "/entries") => Ok(Response::text(200, backend::list()?)),
        (Method::Post, "/entries") => add(request),
        (Method::Delete, "/entries") => clear(request),
        (_, "/" | "/healthz" | "/entries") => Ok(Response::text(405, "not so\n".to_owned())),
        (_, path) => Ok(Response::text(404, format!("no page at {path}\n"))),
    }
}

fn add(request: &Request) -> io::Result<Response> {
    let from_form = request
        .content_type
        .starts_with("application/x-www-form-urlencoded");
    let text = if from_form {
        form::field(&request.body, "text").unwrap_or_default()
    } else {
        request.body.clone()
    };
    // An entry is a line.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return Ok(Response::text(400, "an entry has a text\n".to_owned()));
    }
    backend::add(&text)?;
    Ok(if from_form {
        Response::see_other("/")
    } else {
        Response::text(201, "added\n".to_owned())
    })
}

fn clear(request: &Request) -> io::Result<Response> {
    let token = std::fs::read_to_string(admin_token_file())?;
    if !is_same(request.bearer_token.as_bytes(), token.trim().as_bytes()) {
        return Ok(Response::text(
            403,
            "the administrator's token is needed\n".to_owned(),
        ));
    }
    backend::clear()?;
    Ok(Response::text(200, "cleared\n".to_owned()))
}

/// Compares in a time that does not depend on where the two differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    !token.is_empty() && given.len() == token.len() && differing == 0
}

/// From the ConfigMap, as a variable.
fn title() -> String {
    std::env::var("TITLE").unwrap_or_else(|_| "Guestbook".to_owned())
}

/// From the Secret, as a file.
fn admin_token_file() -> String {
    std::env::var("ADMIN_TOKEN_FILE").unwrap_or_else(|_| "/etc/guestbook/admin-token".to_owned())
}
