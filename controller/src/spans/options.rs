//! What the command line and the environment say of the export of spans.

use std::str::FromStr as _;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;
use url::Url;

use super::collector::Collector;
use crate::data_dir::SelfRecord;

/// The standard's variable for headers. There is no flag for it: others see the flags of a process.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// Where the collector takes traces, below its endpoint.
const PATH: &str = "/v1/traces";

/// Where spans of requests go, if anywhere.
#[derive(Debug, Clone, Args)]
pub struct OtlpArgs {
    /// OpenTelemetry collector that gets a span of each request, by OTLP over HTTP (not gRPC), such as
    /// http://collector.lan:4318; "/v1/traces" is put behind it. OTEL_EXPORTER_OTLP_HEADERS has what
    /// it wants to know of you, as in "authorization=Bearer%20TOKEN"
    #[arg(
        long,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true
    )]
    pub otlp_endpoint: Option<String>,
    /// How many of the requests that come without a trace get a span: 1 is all, 0.01 one of a hundred.
    /// Those that come with one get it if their caller says that theirs is recorded
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
    pub otlp_sample_ratio: f64,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: Option<f64> = text.parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Why spans cannot be exported as was asked.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error(
        "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT): expected a URL such as http://collector.lan:4318"
    )]
    Endpoint,
    #[error(
        "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT): no name and password in the URL; set {HEADERS}=authorization=Basic%20..."
    )]
    Credentials,
    #[error("{HEADERS}: part {part} is not NAME=VALUE with the name and value of an HTTP header")]
    Header { part: usize },
    #[error("--otlp-endpoint: this machine trusts no certificates; install ca-certificates")]
    NoRoots,
}

/// What is exported where.
pub struct OtlpOptions {
    pub(super) collector: Collector,
    pub(super) sample_ratio: f64,
    pub(super) resource: Resource,
}

impl OtlpArgs {
    /// `None` where nobody collects.
    pub fn connect(&self, own: &SelfRecord) -> Result<Option<OtlpOptions>, OtlpError> {
        let endpoint = match self.otlp_endpoint.as_deref() {
            None | Some("") => return Ok(None),
            Some(text) => endpoint(text)?,
        };
        let headers = headers(&std::env::var(HEADERS).unwrap_or_default())?;
        Ok(Some(OtlpOptions {
            collector: Collector::new(&endpoint, headers)?,
            sample_ratio: self.otlp_sample_ratio,
            resource: resource(own),
        }))
    }
}

/// Who says what is in the spans.
fn resource(own: &SelfRecord) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "hive"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", own.raft_id.to_string()),
            KeyValue::new("hive.cluster", own.cluster.clone()),
        ])
        .build()
}

fn endpoint(text: &str) -> Result<Url, OtlpError> {
    let mut url = Url::parse(text).map_err(|_| OtlpError::Endpoint)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(OtlpError::Endpoint);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(OtlpError::Credentials);
    }
    let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_fragment(None);
    Ok(url)
}

/// As in "name=value,other=value", with values percent-encoded.
fn headers(text: &str) -> Result<HeaderMap, OtlpError> {
    let parts = text.split(',').map(str::trim).enumerate();
    let given = parts.filter(|(_, pair)| !pair.is_empty());
    let header =
        |(number, pair): (usize, &str)| header(pair).ok_or(OtlpError::Header { part: number + 1 });
    given.map(header).collect()
}

fn header(pair: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = pair.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_str(name.trim()).ok()?, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_is_the_collectors_base() {
        for (text, expected) in [
            ("http://a.lan:4318", Ok("http://a.lan:4318/v1/traces")),
            ("https://a.lan/", Ok("https://a.lan/v1/traces")),
            ("https://a.lan/otlp/", Ok("https://a.lan/otlp/v1/traces")),
            ("a.lan:4318", Err("expected a URL")),
            ("grpc://a.lan:4317", Err("expected a URL")),
            ("http://", Err("expected a URL")),
            ("https://me:secret@a.lan", Err("no name and password")),
        ] {
            match (endpoint(text), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url.as_str(), expected),
                (Err(error), Err(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected), "{error}");
                    assert!(!error.contains("secret"), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn headers_are_as_the_standard_has_them() {
        let found = headers(" authorization=Bearer%20a%3D, x-team = blue ,").unwrap();
        assert_eq!(found["authorization"], "Bearer a=");
        assert_eq!(found["x-team"], "blue");
        assert!(found.values().all(HeaderValue::is_sensitive));
        assert!(headers("").unwrap().is_empty());
        for (text, part) in [("secret", 1), ("a=b,c d=secret", 2), ("a=%0Asecret", 1)] {
            let error = headers(text).unwrap_err().to_string();
            assert!(error.contains(&format!("part {part} ")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_ratio_is_a_part_of_one() {
        for (text, expected) in [("0", Some(0.0)), ("0.5", Some(0.5)), ("1", Some(1.0))] {
            assert_eq!(ratio(text).ok(), expected);
        }
        for text in ["-0.1", "1.1", "NaN", "all"] {
            assert!(ratio(text).is_err(), "{text}");
        }
    }
}
