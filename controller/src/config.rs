//! The command line of a controller.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use hive_identity::{JoinToken, LiveCredentials};
use hive_manifests::duration::GoDuration;
use hive_manifests::quantity::Bytes;
use url::Url;

use crate::access::oidc::{Oidc, OidcError, OidcOptions};
use crate::artifacts::Allow;
use crate::audit::{AuditOptions, OnFailure, Policy, Rotation};
use crate::data_dir::SelfRecord;
use crate::reconcile::compile::child::CompileWorkerArgs;
use crate::served_certificate::{ApiCertificates, ServedCertificateError};
use crate::spans::OtlpArgs;
use crate::state::Member;
use crate::tunnels::providers::cloudflare::api;
use crate::tunnels::providers::hold::HoldArgs;

/// One of the controllers that keep a swarm's state and give its agents their work.
#[derive(Debug, Parser)]
#[command(name = "hive-controller", version)]
pub struct ControllerCommand {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a new swarm: its certificate authority, and this machine as its first controller
    Init(InitArgs),
    /// Make this machine another controller of a swarm
    Join(JoinArgs),
    /// Run the controller that `init`, `join` or `restore` made here
    Run(Box<RunArgs>),
    /// Give up this controller's place in the swarm for good, and stop it
    Leave(LeaveArgs),
    /// Go on alone with this controller after a majority was lost for good
    Recover(RecoverArgs),
    /// Make the first controller of a swarm from a backup (`hivectl backup`)
    Restore(RestoreArgs),
    /// Measure whether a disk is fast enough for a controller
    CheckDisk(CheckDiskArgs),
    /// Compile one component for one kind of node: what a running controller starts for each
    #[command(hide = true)]
    CompileWorker(CompileWorkerArgs),
    /// Become a program that ends with its controller: what a running controller starts for tunnels
    #[command(hide = true)]
    Hold(HoldArgs),
    /// See and make the keys with which a controller's disk is encrypted
    #[command(subcommand)]
    Encryption(EncryptionAction),
}

#[derive(Debug, Subcommand)]
pub enum EncryptionAction {
    /// Show which keys are in use, and which can be removed from the key file
    Status(EncryptionStatusArgs),
    /// Make a key: print it, or put it before the others of a key file
    GenerateKey(GenerateKeyArgs),
}

#[derive(Debug, Args)]
pub struct EncryptionStatusArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
}

#[derive(Debug, Args)]
pub struct GenerateKeyArgs {
    /// Put it first in this key file, which is made if it does not exist. The controller uses it from
    /// its next start or SIGHUP on
    #[arg(long, value_name = "FILE")]
    pub first_in: Option<PathBuf>,
}

/// Where the keys of a controller's disk are.
#[derive(Debug, Clone, Args)]
pub struct KeyFileArgs {
    /// File with the keys of this controller's disk, one a line: the first seals, all of them open
    /// [default: the one that `init`, `join`, `restore` or an earlier `run` noted]
    #[arg(long, env = "HIVE_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    pub encryption_key_file: Option<PathBuf>,
}

/// How the disk of a new controller is encrypted.
#[derive(Debug, Clone, Args)]
pub struct NewDiskArgs {
    /// File with the keys of this controller's disk, outside of the data directory; made if it does
    /// not exist [default: beside the data directory, named as it with ".keys" at the end]
    #[arg(long, env = "HIVE_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    pub encryption_key_file: Option<PathBuf>,
    /// Leave the swarm's secrets readable to whoever gets hold of this disk
    #[arg(long, conflicts_with = "encryption_key_file")]
    pub no_encryption: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// Where the controller keeps what it must not lose
    #[arg(long, env = "HIVE_CONTROLLER_DATA_DIR", default_value_os_t = default_data_dir())]
    pub data_dir: PathBuf,
}

/// Where others reach this controller.
#[derive(Debug, Clone, Args)]
pub struct Addresses {
    /// Name or address at which agents, controllers and people reach this machine
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub advertise: String,
    /// Port for agents and controllers, UDP and TCP
    #[arg(long, default_value_t = 7443, value_name = "PORT")]
    pub link_port: u16,
    /// Port of the API (HTTPS)
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub api_port: u16,
    /// Port of the public ingress (HTTP)
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub ingress_port: u16,
    /// Port of the public ingress for TLS: tunnels by https, and those of protocol TLS [default: none]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ingress_tls_port: Option<u16>,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub disk: NewDiskArgs,
    /// Name of the swarm: lower-case letters, digits, "-" and "."
    #[arg(long, default_value = "hive")]
    pub cluster: String,
    /// Functions without a host of their own answer at NAME.NAMESPACE.DOMAIN
    #[arg(long, default_value = "localhost")]
    pub domain: String,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub disk: NewDiskArgs,
    /// A token made with `hivectl token create --kind controller-join`
    #[arg(long, env = "HIVE_TOKEN", hide_env_values = true)]
    pub token: JoinToken,
    /// Link addresses of controllers that are there already, HOST:PORT
    #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT")]
    pub controllers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub disk: NewDiskArgs,
    /// The passphrase that it is sealed with
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckDiskArgs {
    /// A directory on the disk
    pub dir: PathBuf,
}

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

/// Where people sign in.
#[derive(Debug, Clone, Args)]
pub struct OidcArgs {
    /// OpenID Connect issuer whose ID tokens are taken, an https URL
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<Url>,
    /// The client for which the tokens must be made
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// The claim that names the user
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,
    /// In front of every user's name; "-" for nothing
    /// [default: the issuer's URL and "#", nothing with the claim "email"]
    #[arg(long, value_name = "TEXT")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// In front of every group's name
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub oidc_groups_prefix: String,
    /// A claim that tokens must have with just this value; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = claim_and_value)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// Certificates in PEM that vouch for the issuer [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
}

fn claim_and_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(claim, _)| !claim.is_empty())
        .map(|(claim, value)| (claim.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected CLAIM=VALUE".to_owned())
}

impl OidcArgs {
    pub fn connect(&self) -> Result<Option<Oidc>, OidcError> {
        let (Some(issuer), Some(client_id)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        let username_prefix = self.oidc_username_prefix.clone();
        Oidc::new(OidcOptions {
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: username_prefix.map(|prefix| match prefix.as_str() {
                "-" => String::new(),
                _ => prefix,
            }),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.clone(),
            ca_file: self.oidc_ca_file.clone(),
        })
        .map(Some)
    }
}

/// The record of who did what through the API.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Where the audit log goes [default: audit/audit.log in the data directory]
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// What is recorded: a Policy of audit.k8s.io/v1 with levels None, Metadata and Request
    /// [default: writes, and whatever touches secrets, as Metadata]
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Megabytes after which the audit log is put aside
    #[arg(long, value_name = "MB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub audit_log_maxsize: u64,
    /// Audit logs kept beside the current one
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub audit_log_maxbackup: usize,
    /// What happens to requests while the audit log cannot be written
    #[arg(long, value_enum, default_value_t = OnFailure::Continue)]
    pub audit_on_failure: OnFailure,
}

impl AuditArgs {
    pub fn options(&self, otherwise: PathBuf) -> anyhow::Result<AuditOptions> {
        let policy = match &self.audit_policy_file {
            None => Policy::default(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(anyhow::Error::new)
                .and_then(|text| Ok(Policy::parse(&text)?))
                .with_context(|| format!("--audit-policy-file {}", file.display()))?,
        };
        Ok(AuditOptions {
            path: self.audit_log_path.clone().unwrap_or(otherwise),
            rotation: Rotation {
                max_bytes: self.audit_log_maxsize << 20,
                keep: self.audit_log_maxbackup,
            },
            policy,
            on_failure: self.audit_on_failure,
        })
    }
}

impl Addresses {
    pub fn member(&self) -> Member {
        let host = match self.advertise.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => self.advertise.clone(),
        };
        Member {
            link: format!("{host}:{}", self.link_port),
            api: format!("{host}:{}", self.api_port),
            ingress: format!("{host}:{}", self.ingress_port),
            ingress_tls: self.ingress_tls_port.map(|port| format!("{host}:{port}")),
        }
    }
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

    pub fn link_settings(&self) -> hive_proto::link::LinkSettings {
        hive_proto::link::LinkSettings {
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

fn default_data_dir() -> PathBuf {
    data_home().join("hive/controller")
}

/// Where a user's data belongs (XDG base directory specification: a relative path there is ignored).
pub fn data_home() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        ControllerCommand::command().debug_assert();
    }

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
    fn addresses_become_endpoints() {
        let args = [
            "hive-controller",
            "init",
            "--advertise",
            "fd00::1",
            "--api-port",
            "1",
        ];
        let Action::Init(init) = ControllerCommand::try_parse_from(args).unwrap().action else {
            panic!("not init");
        };
        let member = init.addresses.member();
        assert_eq!(member.api, "[fd00::1]:1");
        assert_eq!(member.link, "[fd00::1]:7443");
        assert_eq!(member.ingress_tls, None);
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
