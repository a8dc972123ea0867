//! Where a controller listens, and the sockets there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, bail};
use hive_identity::{LiveCredentials, tls};
use hive_proto::link::{BindError, LinkSettings, Listener, ResetSecret};
use tokio::net::TcpListener;

use crate::config::RunArgs;
use crate::data_dir::SelfRecord;

/// Where this controller listens; all are bound before anything starts.
pub(super) struct Sockets {
    pub(super) link: Listener,
    pub(super) api: TcpListener,
    pub(super) ingress: TcpListener,
    pub(super) ingress_tls: Option<TcpListener>,
}

impl Sockets {
    pub(super) async fn bind(
        args: &RunArgs,
        record: &SelfRecord,
        live: &LiveCredentials,
    ) -> anyhow::Result<Self> {
        let member = &record.member;
        let address = |endpoint: &str| listen_address(args.bind, endpoint);
        let link_at = address(&member.link)?;
        // Agents that a killed controller leaves behind are back as soon as they say a word to it.
        let settings = LinkSettings {
            resets: Some(ResetSecret(live.current().key().derive("link resets"))),
            ..args.link_settings()
        };
        let link = Listener::bind(link_at, tls::link_server_config(live), settings)
            .await
            .map_err(|error| explain_link(error, link_at))?;
        let ingress_tls = match &member.ingress_tls {
            Some(endpoint) => {
                let mut at = address(endpoint)?;
                at.set_port(record.ingress_tls_port.unwrap_or(at.port()));
                Some(bind_tcp(at, "TLS").await?)
            }
            None => None,
        };
        Ok(Self {
            link,
            ingress_tls,
            api: bind_tcp(address(&member.api)?, "the API").await?,
            ingress: bind_tcp(address(&member.ingress)?, "the ingress").await?,
        })
    }
}

fn explain_link(error: BindError, at: SocketAddr) -> anyhow::Error {
    anyhow::Error::new(error).context(format!(
        "cannot listen on {at} for links: is another controller running there?"
    ))
}

async fn bind_tcp(at: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at)
        .await
        .with_context(|| format!("cannot listen on {at} for {what}: is the port in use?"))
}

/// What is advertised on loopback is not offered to the network.
fn listen_address(bind: Option<IpAddr>, endpoint: &str) -> anyhow::Result<SocketAddr> {
    let Some((host, port)) = endpoint.rsplit_once(':') else {
        bail!("{endpoint:?} is not HOST:PORT");
    };
    let port = port
        .parse()
        .with_context(|| format!("{endpoint:?} has no valid port"))?;
    let host = host.trim_matches(['[', ']']);
    let ip = bind.unwrap_or_else(|| match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    });
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_stays_loopback() {
        let cases = [
            (None, "127.0.0.1:1", "127.0.0.1:1"),
            (None, "localhost:1", "127.0.0.1:1"),
            (None, "[::1]:1", "[::1]:1"),
            (None, "10.0.0.7:1", "0.0.0.0:1"),
            (None, "[fd00::7]:1", "[::]:1"),
            (None, "hive.example.org:1", "0.0.0.0:1"),
            (Some("10.0.0.8"), "10.0.0.7:1", "10.0.0.8:1"),
        ];
        for (bind, endpoint, expected) in cases {
            let bind = bind.map(|ip| ip.parse().unwrap());
            assert_eq!(
                listen_address(bind, endpoint).unwrap().to_string(),
                expected
            );
        }
        assert!(listen_address(None, "nonsense").is_err());
    }
}
