//! One outgoing request, and what came of it.

use std::io::Read;

use wasip2::http::{
    outgoing_handler,
    types::{ErrorCode, Fields, OutgoingRequest, Scheme},
};

/// The status and body that a GET of `url` is answered with.
pub fn get(url: &str) -> Result<(u16, String), String> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => return Err(format!("{url} is no http or https URL")),
    };
    let path_start = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_start);
    let path = if path.is_empty() { "/" } else { path };

    let request = OutgoingRequest::new(Fields::new());
    let parts = request
        .set_scheme(Some(&scheme))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    parts.map_err(|()| format!("{url} has a part that HTTP does not allow"))?;
    send(request).map_err(|error| error.to_string())
}

fn send(request: OutgoingRequest) -> Result<(u16, String), ErrorCode> {
    // A refusal may come at once or in the response's place.
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    let response = pending
        .get()
        .expect("the response is there once its pollable is ready")
        .expect("and was not taken before")?;
    let status = response.status();
    let body = response.consume().expect("the body was not taken before");
    let mut stream = body.stream().expect("nor was its stream");
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}
