//! Outgoing requests, and what came of them.

use std::{
    io::{Read, Write},
    time::Duration,
};

use wasip2::http::{
    outgoing_handler,
    types::{
        ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
        OutgoingRequest, RequestOptions, Scheme,
    },
};

/// Redirects that are followed at most.
const HOPS: u32 = 5;

/// A request to send. What is said besides the URL takes the place of its part, as it is.
#[derive(Clone)]
pub struct Asked {
    pub url: String,
    pub method: Option<String>,
    pub scheme: Option<String>,
    pub authority: Option<String>,
    pub path: Option<String>,
    pub host: Option<String>,
    /// `name: value` each.
    pub headers: Vec<String>,
    pub body: Option<String>,
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
}

/// The status and body of the answer.
pub fn get(asked: &Asked) -> Result<String, String> {
    let (status, _, body) = answer(&send(asked)?)?;
    Ok(format!("status {status}\n{body}"))
}

/// A line for each answer on the way, then the last one's body. No redirect is followed by anybody
/// else.
pub fn follow(mut asked: Asked) -> Result<String, String> {
    let mut way = String::new();
    for _ in 0..HOPS {
        let hop = send(&asked).and_then(|sent| answer(&sent));
        let (status, location, body) = match hop {
            Ok(hop) => hop,
            Err(error) => return Ok(format!("{way}error {error}")),
        };
        let Some(location) = location else {
            return Ok(format!("{way}status {status}\n{body}"));
        };
        way += &format!("status {status} to {location}\n");
        asked.url = location;
    }
    Err(format!("{way}more than {HOPS} redirects"))
}

/// Sends so many before it reads any answer; a line for each.
pub fn many(asked: &Asked, count: u64) -> String {
    let sent: Vec<_> = (0..count).map(|_| send(asked)).collect();
    let line = |sent: Result<FutureIncomingResponse, String>| match sent
        .and_then(|pending| answer(&pending))
    {
        Ok((status, ..)) => format!("status {status}\n"),
        Err(error) => format!("error {error}\n"),
    };
    sent.into_iter().map(line).collect()
}

fn send(asked: &Asked) -> Result<FutureIncomingResponse, String> {
    let (scheme, rest) = match asked.url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => return Err(format!("{} is no http or https URL", asked.url)),
    };
    let scheme = asked.scheme.clone().map_or(scheme, Scheme::Other);
    let path_start = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_start);
    let authority = asked.authority.as_deref().unwrap_or(authority);
    let path = asked.path.as_deref().unwrap_or(path);
    let path = if path.is_empty() { "/" } else { path };
    let method = asked.method.as_deref().map_or(Method::Get, method);

    let bad = |part: &'static str| move |()| format!("HTTP does not allow this {part}");
    let request = OutgoingRequest::new(headers(asked)?);
    request.set_method(&method).map_err(bad("method"))?;
    request.set_scheme(Some(&scheme)).map_err(bad("scheme"))?;
    request
        .set_authority(Some(authority))
        .map_err(bad("authority"))?;
    request
        .set_path_with_query(Some(path))
        .map_err(bad("path"))?;
    let body = request.body().expect("a new request still has its body");
    // A refusal may come at once or in the response's place.
    let pending = outgoing_handler::handle(request, Some(options(asked)))
        .map_err(|error| error.to_string())?;
    write(body, asked.body.as_deref().unwrap_or_default());
    Ok(pending)
}

fn headers(asked: &Asked) -> Result<Fields, String> {
    let headers = Fields::new();
    let host = asked.host.iter().map(|host| ("host", host.as_str()));
    let others = asked.headers.iter();
    let others = others.map(|line| line.split_once(": ").unwrap_or((line.as_str(), "")));
    for (name, value) in host.chain(others) {
        headers
            .append(name, value.as_bytes())
            .map_err(|error| format!("the header {name}: {error:?}"))?;
    }
    Ok(headers)
}

fn options(asked: &Asked) -> RequestOptions {
    let options = RequestOptions::new();
    let nanoseconds = |time: Option<Duration>| Some(time?.as_nanos() as u64);
    let all = options
        .set_connect_timeout(nanoseconds(asked.connect))
        .and_then(|()| options.set_first_byte_timeout(nanoseconds(asked.first_byte)))
        .and_then(|()| options.set_between_bytes_timeout(nanoseconds(asked.between_bytes)));
    all.expect("the host knows all timeouts");
    options
}

/// Whether it arrives is what the answer tells.
fn write(body: OutgoingBody, text: &str) {
    let mut stream = body.write().expect("a new body still has its stream");
    let _ = stream.write_all(text.as_bytes());
    let _ = Write::flush(&mut stream);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Status, `location` where the status is a redirect's, body.
fn answer(pending: &FutureIncomingResponse) -> Result<(u16, Option<String>, String), String> {
    pending.subscribe().block();
    let response = pending
        .get()
        .expect("the response is there once its pollable is ready")
        .expect("and was not taken before")
        .map_err(|error: ErrorCode| error.to_string())?;
    let status = response.status();
    let location = (300..400)
        .contains(&status)
        .then(|| location(&response))
        .flatten();
    let body = response.consume().expect("the body was not taken before");
    let mut stream = body.stream().expect("nor was its stream");
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok((
        status,
        location,
        String::from_utf8_lossy(&bytes).into_owned(),
    ))
}

fn location(response: &IncomingResponse) -> Option<String> {
    let values = response.headers().get("location");
    Some(String::from_utf8_lossy(values.first()?).into_owned())
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}
