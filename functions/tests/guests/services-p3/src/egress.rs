//! Outgoing requests, and what came of them.

use std::time::Duration;

use wasip3::{
    http::{
        client,
        types::{Fields, Method, Request, RequestOptions, Response, Scheme},
    },
    wit_future,
};

use crate::{
    query::{BadParameter, Query},
    together,
};

/// Redirects that are followed at most.
const HOPS: u32 = 5;

/// A request to send. What is said besides the URL takes the place of its part, as it is.
pub struct Asked {
    url: String,
    method: Option<String>,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    /// `name: value` each.
    headers: Vec<String>,
    connect: Option<Duration>,
    first_byte: Option<Duration>,
    between_bytes: Option<Duration>,
}

impl Asked {
    pub fn of(query: &Query) -> Result<Self, BadParameter> {
        Ok(Self {
            url: query.required("url")?,
            method: query.text("method"),
            scheme: query.text("scheme"),
            authority: query.text("authority"),
            path: query.text("path"),
            headers: query.texts("header").collect(),
            connect: query.milliseconds("connect")?,
            first_byte: query.milliseconds("first")?,
            between_bytes: query.milliseconds("between")?,
        })
    }
}

/// The status and body of the answer.
pub async fn get(asked: &Asked) -> Result<String, String> {
    let (status, _, body) = answer(send(asked).await?).await?;
    Ok(format!("status {status}\n{body}"))
}

/// A line for each answer on the way, then the last one's body. No redirect is followed by anybody
/// else.
pub async fn follow(mut asked: Asked) -> Result<String, String> {
    let mut way = String::new();
    for _ in 0..HOPS {
        let hop = match send(&asked).await {
            Ok(response) => answer(response).await,
            Err(error) => Err(error),
        };
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

/// So many at once; a line for each.
pub async fn many(asked: &Asked, count: u64) -> String {
    let one = async || {
        let (status, ..) = answer(send(asked).await?).await?;
        Ok(format!("status {status}\n"))
    };
    let told = together::all((0..count).map(|_| one())).await;
    let line =
        |sent: Result<String, String>| sent.unwrap_or_else(|error| format!("error {error}\n"));
    told.into_iter().map(line).collect()
}

async fn send(asked: &Asked) -> Result<Response, String> {
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
    let (_trailers, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(headers(asked)?, None, trailers, Some(options(asked)));
    request.set_method(&method).map_err(bad("method"))?;
    request.set_scheme(Some(&scheme)).map_err(bad("scheme"))?;
    request
        .set_authority(Some(authority))
        .map_err(bad("authority"))?;
    request
        .set_path_with_query(Some(path))
        .map_err(bad("path"))?;
    client::send(request)
        .await
        .map_err(|error| error.to_string())
}

fn headers(asked: &Asked) -> Result<Fields, String> {
    let headers = Fields::new();
    for line in &asked.headers {
        let (name, value) = line.split_once(": ").unwrap_or((line.as_str(), ""));
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

/// Status, `location` where the status is a redirect's, body.
async fn answer(response: Response) -> Result<(u16, Option<String>, String), String> {
    let status = response.get_status_code();
    let location = (300..400)
        .contains(&status)
        .then(|| location(&response))
        .flatten();
    let (_taken, taken) = wit_future::new(|| Ok(()));
    let (body, ended) = Response::consume_body(response, taken);
    let bytes = body.collect().await;
    ended.await.map_err(|error| error.to_string())?;
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok((status, location, body))
}

fn location(response: &Response) -> Option<String> {
    let values = response.get_headers().get("location");
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
