//! `hivectl invoke`: one HTTP request to a function, through the API, without a public address.

use std::fs;
use std::io::Read;

use clap::Args;
use hive_manifests::Resource;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Uri};
use http_body_util::BodyExt;
use kube::core::Status;

use crate::cluster::{Call, path};
use crate::commands::lookup;
use crate::failure::Failure;
use crate::selection;
use crate::session::Session;

/// The most that is sent; a function's own limit is the server's affair.
const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if the function answered with a status below 400, else 1.

Examples:
  hivectl invoke hello
  hivectl invoke fn/hello --path '/greet?name=Ada' -i
  hivectl invoke hello --data '{\"a\": 1}' -H 'content-type: application/json'
  hivectl invoke hello --data @request.json      the content of a file; @- is standard input"
)]
pub struct Invoke {
    /// FUNCTION, or function/NAME
    #[arg(value_name = "FUNCTION", required = true)]
    words: Vec<String>,

    /// The path and query to request
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,

    /// The method; GET, or POST with --data
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<Method>,

    /// The body to send; @FILE reads it from a file
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,

    /// A header to send; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// Also print the status and headers of the answer
    #[arg(short, long)]
    include: bool,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("write a header as NAME: VALUE")?;
    let name: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| format!("{name:?} is not a header's name"))?;
    if name == http::header::AUTHORIZATION {
        return Err("authorization carries your API token here and cannot be sent to the function; use the function's public URL".into());
    }
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("the value of {name} holds characters that a header cannot"))?;
    Ok((name, value))
}

pub async fn run(invoke: Invoke, session: &mut Session<'_>) -> Result<(), Failure> {
    let (resource, name) = selection::single(&invoke.words, Resource::Function)?;
    if resource != Resource::Function {
        return Err(Failure::usage(format!(
            "{} cannot be invoked; functions can",
            resource.plural()
        )));
    }
    let body = body(&invoke, session)?;
    let cluster = session.cluster().await?;
    let namespace = session.namespace().await?;
    let object = path::object(resource, Some(&namespace), &name);
    let target = format!("{object}/proxy/{}", invoke.path.trim_start_matches('/'));
    if target.parse::<Uri>().is_err() {
        return Err(Failure::usage(format!(
            "--path {:?} is not the path of a URL; write blanks as %20",
            invoke.path
        )));
    }
    let method = invoke.method.clone().unwrap_or(match invoke.data {
        Some(_) => Method::POST,
        None => Method::GET,
    });
    let mut call = Call::new(method, &target)
        .accept("*/*")
        .body("application/octet-stream", body.into());
    for (name, value) in &invoke.headers {
        call = call.header(name.clone(), value.clone());
    }
    let response = cluster.raw(&call).await?;
    let status = response.status();
    if invoke.include {
        let world = &mut session.world;
        write!(world.out, "{:?} {status}\r\n", response.version())?;
        for (name, value) in response.headers() {
            write!(world.out, "{name}: ")?;
            world.out.write_all(value.as_bytes())?;
            write!(world.out, "\r\n")?;
        }
        write!(world.out, "\r\n")?;
    }
    // The API server's own refusals are Status objects; all else is the function's.
    let is_json = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut body = response.into_body();
    if status.as_u16() >= 400 && is_json && !invoke.include {
        let bytes = body
            .collect()
            .await
            .map_err(|error| Failure::new(crate::failure::chain(&error)))?
            .to_bytes();
        if let Some(refusal) = api_refusal(&bytes) {
            let error = cluster.credential.refusal(refusal);
            return Err(
                lookup::not_found(&cluster, resource, Some(&namespace), &name, error).await,
            );
        }
        session.world.out.write_all(&bytes)?;
    } else {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::new(format_args!(
                    "the answer was cut off: {}",
                    crate::failure::chain(&error)
                ))
            })?;
            if let Ok(data) = frame.into_data() {
                session.world.out.write_all(&data)?;
                session.world.out.flush()?;
            }
        }
    }
    session.world.out.flush()?;
    if status.as_u16() >= 400 {
        return Err(Failure::new(format_args!("the function answered {status}")));
    }
    Ok(())
}

/// The API server's refusal, if that is what the answer is.
fn api_refusal(body: &[u8]) -> Option<Status> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let is_status = value["kind"] == "Status" && value["apiVersion"] == "v1";
    let status: Status = serde_json::from_value(value).ok()?;
    (is_status && status.is_failure()).then_some(status)
}

fn body(invoke: &Invoke, session: &mut Session<'_>) -> Result<Vec<u8>, Failure> {
    let Some(data) = &invoke.data else {
        return Ok(Vec::new());
    };
    let mut bytes = Vec::new();
    let read = match data.strip_prefix('@') {
        None => return Ok(data.clone().into_bytes()),
        Some("-") => (&mut session.world.input)
            .take(MAX_BODY_BYTES + 1)
            .read_to_end(&mut bytes),
        Some(file) => fs::File::open(file)
            .and_then(|open| open.take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::new(format_args!("cannot read --data {data}: {error}")))?;
    if bytes.len() as u64 > MAX_BODY_BYTES {
        return Err(Failure::new(format_args!(
            "--data {data} is larger than {} MiB",
            MAX_BODY_BYTES >> 20
        )));
    }
    Ok(bytes)
}
