//! Cloudflare's API, version 4: tunnels, their configurations, and records of DNS.
//!
//! One function a request, which says what came of it in words. It decides nothing; every answer has a bound, every
//! wait an end.

mod answer;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::super::Token;
use super::plan::{Record, Rule};
use crate::client_tls;
pub use answer::ApiError;
use answer::{PATIENCE, understand, unreachable};

/// Where it is.
pub const PUBLIC: &str = "https://api.cloudflare.com/client/v4";

/// A page of a list is some KB.
const MAX_ANSWER: usize = 1 << 20;

/// Records of one name that are looked at: more than one that leads somewhere are in the way already.
const MAX_RECORDS: u32 = 20;

#[derive(Clone)]
pub struct Api {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Url,
}

/// A tunnel as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListedTunnel {
    pub id: String,
    pub name: String,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Default, Deserialize)]
struct Configuration {
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    ingress: Vec<Rule>,
}

impl Api {
    /// `base` is [`PUBLIC`], or what stands for it in tests.
    pub fn new(base: Url) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls::config(client_tls::system_roots()))
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base,
        }
    }

    /// The tunnel of that name, if there is one that was not deleted.
    pub async fn find_tunnel(
        &self,
        token: &Token,
        account: &str,
        name: &str,
    ) -> Result<Option<ListedTunnel>, ApiError> {
        let mut url = self.at(&["accounts", account, "cfd_tunnel"]);
        url.query_pairs_mut()
            .append_pair("name", name)
            .append_pair("is_deleted", "false");
        let found: Vec<ListedTunnel> = self
            .ask(token, "list tunnels", Method::GET, url, None)
            .await?;
        Ok(found.into_iter().find(|tunnel| tunnel.name == name))
    }

    /// One whose configuration is kept at Cloudflare.
    pub async fn create_tunnel(
        &self,
        token: &Token,
        account: &str,
        name: &str,
    ) -> Result<ListedTunnel, ApiError> {
        let url = self.at(&["accounts", account, "cfd_tunnel"]);
        let body = json!({ "name": name, "config_src": "cloudflare" });
        self.ask(token, "create a tunnel", Method::POST, url, Some(body))
            .await
    }

    /// With its connections, those that are still there among them.
    pub async fn delete_tunnel(
        &self,
        token: &Token,
        account: &str,
        tunnel: &str,
    ) -> Result<(), ApiError> {
        let mut url = self.at(&["accounts", account, "cfd_tunnel", tunnel]);
        url.query_pairs_mut().append_pair("cascade", "true");
        let deleted = self
            .ask::<Value>(token, "delete a tunnel", Method::DELETE, url, None)
            .await;
        unless_absent(deleted)
    }

    /// With which cloudflared runs it.
    pub async fn tunnel_token(
        &self,
        token: &Token,
        account: &str,
        tunnel: &str,
    ) -> Result<Token, ApiError> {
        let url = self.at(&["accounts", account, "cfd_tunnel", tunnel, "token"]);
        let what = "read a tunnel's token";
        let found: String = self.ask(token, what, Method::GET, url, None).await?;
        Ok(Token::new(found))
    }

    /// What it does with requests; empty of one that was never told.
    pub async fn ingress(
        &self,
        token: &Token,
        account: &str,
        tunnel: &str,
    ) -> Result<Vec<Rule>, ApiError> {
        let url = self.at(&["accounts", account, "cfd_tunnel", tunnel, "configurations"]);
        let what = "read a tunnel's configuration";
        let found: Option<Configuration> = self.ask(token, what, Method::GET, url, None).await?;
        let config = found.unwrap_or_default().config.unwrap_or_default();
        Ok(config.ingress)
    }

    pub async fn configure(
        &self,
        token: &Token,
        account: &str,
        tunnel: &str,
        ingress: &[Rule],
    ) -> Result<(), ApiError> {
        let url = self.at(&["accounts", account, "cfd_tunnel", tunnel, "configurations"]);
        let body = json!({ "config": { "ingress": ingress } });
        let what = "configure a tunnel";
        self.ask::<Value>(token, what, Method::PUT, url, Some(body))
            .await?;
        Ok(())
    }

    /// The id of a zone of the account.
    pub async fn find_zone(
        &self,
        token: &Token,
        account: &str,
        name: &str,
    ) -> Result<Option<String>, ApiError> {
        let mut url = self.at(&["zones"]);
        url.query_pairs_mut()
            .append_pair("name", name)
            .append_pair("account.id", account);
        let found: Vec<Zone> = self
            .ask(token, "list zones", Method::GET, url, None)
            .await?;
        let found = found.into_iter().find(|zone| zone.name == name);
        Ok(found.map(|zone| zone.id))
    }

    /// Records of just that name.
    pub async fn records(
        &self,
        token: &Token,
        zone: &str,
        host: &str,
    ) -> Result<Vec<Record>, ApiError> {
        let mut url = self.at(&["zones", zone, "dns_records"]);
        url.query_pairs_mut()
            .append_pair("name.exact", host)
            .append_pair("per_page", &MAX_RECORDS.to_string());
        let found: Vec<Record> = self
            .ask(token, "list DNS records", Method::GET, url, None)
            .await?;
        Ok(found.into_iter().filter(|it| it.name == host).collect())
    }

    pub async fn create_record(
        &self,
        token: &Token,
        zone: &str,
        record: &Value,
    ) -> Result<(), ApiError> {
        let url = self.at(&["zones", zone, "dns_records"]);
        let what = "create a DNS record";
        self.ask::<Value>(token, what, Method::POST, url, Some(record.clone()))
            .await?;
        Ok(())
    }

    pub async fn change_record(
        &self,
        token: &Token,
        zone: &str,
        id: &str,
        record: &Value,
    ) -> Result<(), ApiError> {
        let url = self.at(&["zones", zone, "dns_records", id]);
        let what = "change a DNS record";
        self.ask::<Value>(token, what, Method::PATCH, url, Some(record.clone()))
            .await?;
        Ok(())
    }

    pub async fn delete_record(&self, token: &Token, zone: &str, id: &str) -> Result<(), ApiError> {
        let url = self.at(&["zones", zone, "dns_records", id]);
        let what = "delete a DNS record";
        unless_absent(
            self.ask::<Value>(token, what, Method::DELETE, url, None)
                .await,
        )
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // A base of HTTP can always be extended.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        token: &Token,
        what: &'static str,
        method: Method,
        url: Url,
        body: Option<Value>,
    ) -> Result<T, ApiError> {
        let exchange = self.exchange(token, method, url, body);
        let (status, retry, body) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| ApiError::TimedOut)??;
        understand(what, status, retry, &body, token)
    }

    async fn exchange(
        &self,
        token: &Token,
        method: Method,
        url: Url,
        body: Option<Value>,
    ) -> Result<(StatusCode, Option<Duration>, Bytes), ApiError> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|error| unreachable(&error))?;
        authorization.set_sensitive(true);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("hive/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(&error))?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let retry = response.headers().get(RETRY_AFTER);
        let retry = retry.and_then(|seconds| seconds.to_str().ok()?.parse::<u64>().ok());
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| unreachable(&*error))?;
        Ok((status, retry.map(Duration::from_secs), body.to_bytes()))
    }
}

fn unless_absent(done: Result<Value, ApiError>) -> Result<(), ApiError> {
    match done {
        Ok(_) => Ok(()),
        Err(error) if error.is_absent() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_put_into_a_path_stays_one_part_of_it() {
        let api = Api::new(Url::parse("http://127.0.0.1:1/client/v4/").unwrap());
        let url = api.at(&["zones", "../a?b", "dns_records"]);
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:1/client/v4/zones/..%2Fa%3Fb/dns_records"
        );
    }
}
