//! How a controller runs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hive_identity::LiveCredentials;
use hive_manifests::duration::GoDuration;
use hive_manifests::quantity::Bytes;
use hive_proto::link::LinkSettings;
use url::Url;

use super::{AuditArgs, DataDir, KeyFileArgs, OidcArgs};
use crate::artifacts::Allow;
use crate::data_dir::SelfRecord;
use crate::served_certificate::{ApiCertificates, ServedCertificateError};
use crate::spans::OtlpArgs;
use crate::tunnels::providers::cloudflare::api;

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
    /// Address to listen on [default: all, or loopback where that is advertised]
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Port of the public ingress for TLS from now on; "none" for no longer having one
    /// [default: that of `init`, `join` or an earlier `run`]
    #[arg(long, value_name = "PORT", value_parser = tls_port)]
    pub ingress_tls_port: Option<TlsPort>,
    /// Port at which the public reaches that one, where it is another: where a router forwards 443, say
    /// [default: the same]
    #[arg(
        long,
        value_name = "PORT",
        requires = "ingress_tls_port",
        value_parser = clap::value_parser!(u16).range(1..),
    )]
    pub ingress_tls_advertise_port: Option<u16>,
    /// A node that nobody heard of for this long is lost, and its work moves
    #[arg(long, default_value = "40s", value_name = "DURATION")]
    pub node_grace: GoDuration,
    /// A quiet link says something this often
    #[arg(long, default_value = "15s", value_name = "DURATION")]
    pub link_keep_alive: GoDuration,
    /// A link from which nothing was heard for this long is dead
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    pub link_idle_timeout: GoDuration,
    /// Memory that compiling one component may take [default: half of the machine's, 1Gi at most]
    #[arg(long, value_name = "QUANTITY")]
    pub compile_memory: Option<Bytes>,
    /// How long the certificates of nodes live; they renew at two thirds
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub certificate_lifetime: GoDuration,
    /// Certificate for the API's hosts that it names, in PEM and with its chain; read again when it changes.
    /// Clients that ask for other hosts see the controller's own, from the swarm's CA
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Host or network at which a registry may be although it is not on the internet, such as
    /// registry.lan or 10.0.0.0/8; may be repeated. Who deploys functions names registries: nothing
    /// else in your network is asked
    #[arg(long, value_name = "HOST|CIDR")]
    pub registry_allow: Vec<Allow>,
    #[command(flatten)]
    pub providers: ProviderArgs,
    #[command(flatten)]
    pub audit: AuditArgs,
    #[command(flatten)]
    pub oidc: OidcArgs,
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// What to log, as in "info,hive_controller=debug"
    #[arg(long, env = "HIVE_LOG", default_value = "info,openraft=warn")]
    pub log: String,
}

/// Where TLS is taken from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPort {
    Open(u16),
    Closed,
}

fn tls_port(text: &str) -> Result<TlsPort, String> {
    match text.parse::<u16>() {
        Ok(0) => Ok(TlsPort::Closed),
        Ok(port) => Ok(TlsPort::Open(port)),
        Err(_) if text == "none" => Ok(TlsPort::Closed),
        Err(_) => Err("expected a port from 1 to 65535, or none".to_owned()),
    }
}

/// What brings connections of tunnels from elsewhere.
#[derive(Debug, Clone, Args)]
pub struct ProviderArgs {
    /// The program that connects to Cloudflare, for tunnels of that provider: a path, or a name in PATH
    #[arg(
        long,
        env = "HIVE_CLOUDFLARED",
        default_value = "cloudflared",
        value_name = "PROGRAM"
    )]
    pub cloudflared: PathBuf,
    /// Arti's configuration in TOML, for tunnels of provider Tor: bridges, or a network of your own
    #[arg(long, env = "HIVE_TOR_CONFIG", value_name = "FILE", hide = true)]
    pub tor_config: Option<PathBuf>,
    /// Where Cloudflare's API is
    #[arg(long, env = "HIVE_CLOUDFLARE_API", default_value = api::PUBLIC, value_name = "URL", hide = true)]
    pub cloudflare_api: Url,
}

impl RunArgs {
    /// Where this controller listens and is reached by its record and these flags.
    pub fn record(&self, recorded: &SelfRecord) -> SelfRecord {
        let mut record = recorded.clone();
        let member = &mut record.member;
        let host = member.ingress.rsplit_once(':').map(|(host, _)| host);
        match (self.ingress_tls_port, host) {
            (Some(TlsPort::Open(port)), Some(host)) => {
                let advertised = self.ingress_tls_advertise_port.unwrap_or(port);
                member.ingress_tls = Some(format!("{host}:{advertised}"));
                record.ingress_tls_port = (advertised != port).then_some(port);
            }
            (Some(TlsPort::Closed), _) => {
                member.ingress_tls = None;
                record.ingress_tls_port = None;
            }
            _ => {}
        }
        record
    }

    pub fn link_settings(&self) -> LinkSettings {
        LinkSettings {
            keep_alive: self.link_keep_alive.0,
            idle_timeout: self.link_idle_timeout.0,
            ..Default::default()
        }
    }

    pub fn api_certificates(
        &self,
        own: &LiveCredentials,
    ) -> Result<ApiCertificates, ServedCertificateError> {
        match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => {
                ApiCertificates::with_files(own.clone(), certificate.clone(), key.clone())
            }
            _ => Ok(ApiCertificates::own(own.clone())),
        }
    }

    pub fn node_grace(&self) -> Duration {
        self.node_grace.0
    }

    /// Refuses times that would take every node for lost, or every link for dead, and a port of nothing.
    pub fn check(&self) -> anyhow::Result<()> {
        let is_closed = self.ingress_tls_port == Some(TlsPort::Closed);
        if let Some(port) = self.ingress_tls_advertise_port.filter(|_| is_closed) {
            anyhow::bail!(
                "--ingress-tls-advertise-port {port}: with --ingress-tls-port none nobody is there; leave it out"
            );
        }
        let [grace, keep_alive, idle, lifetime] = [
            ("--node-grace", self.node_grace, Duration::from_secs(1)),
            (
                "--link-keep-alive",
                self.link_keep_alive,
                Duration::from_millis(100),
            ),
            (
                "--link-idle-timeout",
                self.link_idle_timeout,
                Duration::from_millis(200),
            ),
            (
                "--certificate-lifetime",
                self.certificate_lifetime,
                Duration::from_secs(1),
            ),
        ]
        .map(|(flag, given, least)| match given.0 >= least {
            true => Ok(given.0),
            false => Err(anyhow::anyhow!(
                "{flag} {given}: at least {}",
                GoDuration(least)
            )),
        });
        grace?;
        lifetime?;
        let (keep_alive, idle) = (keep_alive?, idle?);
        if idle < 2 * keep_alive {
            anyhow::bail!(
                "--link-idle-timeout {} is too short for --link-keep-alive {}: one lost packet would end a link; at least twice as long",
                self.link_idle_timeout,
                self.link_keep_alive,
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::config::{Action, ControllerCommand};
    use crate::state::Member;

    #[test]
    fn flags_that_contradict_are_refused() {
        let checked = |flags: &[&str]| {
            let args = ["hive-controller", "run"].iter().chain(flags);
            let Action::Run(run) = ControllerCommand::try_parse_from(args).unwrap().action else {
                panic!("not run");
            };
            run.check().map_err(|error| error.to_string())
        };
        assert_eq!(checked(&[]), Ok(()));
        assert_eq!(
            checked(&["--node-grace", "0s"]),
            Err("--node-grace 0s: at least 1s".into())
        );
        let port = ["--ingress-tls-port", "none"];
        assert_eq!(checked(&port), Ok(()));
        let closed = checked(&[port[0], port[1], "--ingress-tls-advertise-port", "443"]);
        assert!(closed.unwrap_err().ends_with("leave it out"));
        let short = checked(&["--link-keep-alive", "1s", "--link-idle-timeout", "1500ms"]);
        assert!(short.unwrap_err().contains("at least twice as long"));
    }

    #[test]
    fn a_controller_may_take_tls_later() {
        let recorded = SelfRecord {
            raft_id: 1,
            cluster: "hive".into(),
            member: Member {
                ingress: "[fd00::1]:8080".into(),
                ingress_tls: Some("[fd00::1]:443".into()),
                ..Member::default()
            },
            ingress_tls_port: Some(8443),
            raft_dir: None,
            encryption_key_file: None,
        };
        let (port, advertise) = ("--ingress-tls-port", "--ingress-tls-advertise-port");
        for (flags, expected, listens) in [
            (&[][..], Some("[fd00::1]:443"), Some(8443)),
            (&[port, "9443"][..], Some("[fd00::1]:9443"), None),
            (
                &[port, "9443", advertise, "444"][..],
                Some("[fd00::1]:444"),
                Some(9443),
            ),
            (
                &[port, "443", advertise, "443"][..],
                Some("[fd00::1]:443"),
                None,
            ),
            (&[port, "none"][..], None, None),
            (&[port, "0"][..], None, None),
        ] {
            let args = ["hive-controller", "run"].iter().chain(flags);
            let Action::Run(run) = ControllerCommand::try_parse_from(args).unwrap().action else {
                panic!("not run");
            };
            let record = run.record(&recorded);
            let found = (
                record.member.ingress_tls.as_deref(),
                record.ingress_tls_port,
            );
            assert_eq!(found, (expected, listens), "{flags:?}");
        }
        let alone = ["hive-controller", "run", advertise, "443"];
        assert!(ControllerCommand::try_parse_from(alone).is_err());
        for wrong in ["nowhere", "65536", ""] {
            assert!(tls_port(wrong).is_err(), "{wrong:?}");
        }
    }
}
