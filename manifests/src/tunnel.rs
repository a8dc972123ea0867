//! The kind `Tunnel`: a service that listens on a node or in its network, and how it is reached at the
//! controllers.
//!
//! People write the spec; every controller carries the tunnel, and the leader answers with the status.
//! Rules that a type cannot express are in `validate/tunnel.rs`, defaults in `defaults.rs`.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type are no duplicates"
)]

pub mod access;
mod certificate;
mod status;
mod tls;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::http::Http;
use crate::quantity::Bytes;
use access::Access;
pub use certificate::{CertificateStatus, FailedOrder};
pub use status::{ProbeFailure, TargetStatus, TunnelProbe, TunnelStatus};
pub use tls::{MAX_HSTS_AGE, MAX_SERVER_NAMES, Tls};

/// Below it a port takes a privilege that controllers do without.
pub const MIN_PORT: u16 = 1024;
/// A machine for each of a service's copies; each is asked every few seconds by every controller.
pub const MAX_TARGETS: usize = 16;
/// Every connection takes a stream of its node's link and one of the agent's.
pub const MAX_CONNECTIONS: u32 = 10_000;
/// A shorter wait would fire on a busy phone's answer.
pub const MIN_CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
/// Whoever connects has given up by then.
pub const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Less would end what only thinks for a moment.
pub const MIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is to stay longer stays for ever: "0s".
pub const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Nobody ends a flow of UDP: as routers at home wait for the next datagram, and longer than services are silent
/// that are still talking.
pub const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// One packet on every path.
pub const MAX_PAYLOAD_BYTES: usize = 1200;
/// Every controller asks each target: more often would be a load of its own.
pub const MIN_HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// What is asked less often is not watched.
pub const MAX_HEALTH_INTERVAL: Duration = Duration::from_secs(3600);
/// A terminal can be used with less; a number below it lacks its unit.
pub const MIN_BANDWIDTH: Bytes = Bytes(1 << 10);
/// Practically without end.
pub const MAX_BANDWIDTH: Bytes = Bytes(1 << 40);
/// Each is a line of an onion service's descriptor, which is 50 KB at most.
pub const MAX_AUTHORIZED_CLIENTS: usize = 64;

/// Key of a Secret's data: the token with which cloudflared runs a tunnel.
pub const TUNNEL_TOKEN: &str = "tunnelToken";
/// Key of a Secret's data: the token with which Cloudflare's API is asked.
pub const API_TOKEN: &str = "apiToken";

/// Which service is reached, where, and under which limits.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hive.dev",
    version = "v1",
    kind = "Tunnel",
    plural = "tunnels",
    namespaced,
    status = "TunnelStatus",
    derive = "PartialEq",
    shortname = "tun",
    category = "all",
    doc = "An address at the controllers for a service that listens on a node or in its network.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Protocol",
        type_ = "string",
        json_path = ".spec.protocol",
        description = "HTTP, TCP, TLS or UDP"
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.addresses[0]",
        description = "Where it is reached"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "True when it was reached from outside"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "In one word why it is ready or not",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct TunnelSpec {
    /// HTTP: requests for a host name, at the controllers' ingress; WebSockets too. TCP: connections to a
    /// port of its own on every controller. TLS: connections to the controllers' TLS port that ask for one
    /// of serverNames; who listens at the targets ends TLS, and nobody reads along. UDP: datagrams to a port
    /// of its own on every controller. Default HTTP.
    pub protocol: Protocol,
    /// For which host and paths the tunnel answers. Only with HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// The port on which every controller listens: 1024 to 65535. Only with TCP and UDP, and required there. Of two
    /// tunnels with one port of one protocol the older has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = MIN_PORT))]
    pub port: Option<u16>,
    /// For which names of TLS servers (SNI) connections are carried: 1 to 16 host names that lead to the
    /// controllers. Only with TLS, and required there. Of two tunnels with one name the older has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SERVER_NAMES), extend("x-kubernetes-list-type" = "atomic"))]
    pub server_names: Vec<String>,
    /// How the tunnel is served by https, at the controllers' TLS port. Only with HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What the targets speak: HTTP1 (the default), or H2C, which is HTTP/2 without TLS, as gRPC needs it.
    /// Only with HTTP.
    #[serde(skip_serializing_if = "TargetProtocol::is_http1")]
    pub target_protocol: TargetProtocol,
    /// Where the service listens: 1 to 16 places, over which connections are balanced. One that does not
    /// answer is left out until it does. Not together with function.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TARGETS), extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<TunnelTarget>,
    /// Name of a Function of the same namespace that answers instead of targets, within the limits that it
    /// has itself. Only with HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Whether a connection to a target begins with a header of the PROXY protocol, which says who the
    /// client is: None (the default), V1 (text) or V2 (binary). The target must expect it. Only with TCP and TLS.
    #[serde(skip_serializing_if = "ProxyProtocol::is_none")]
    pub proxy_protocol: ProxyProtocol,
    /// Who may use the tunnel: from which addresses, how often, and how they say who they are. Default: everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How it is found out which targets answer.
    pub health_check: HealthCheck,
    /// How long it may take until a target has taken a connection, from "100ms" to "1m". Default "5s". Then
    /// the next target is tried.
    pub connect_timeout: GoDuration,
    /// How long a connection may be silent in both directions before it is ended, from "1s" to "24h", or
    /// "0s" for as long as it likes. Default "1h". With UDP: how long what a client sends from one port is one
    /// flow, which goes to one target; default "1m", and not "0s".
    pub idle_timeout: GoDuration,
    /// Connections at once on each controller: 1 to 10000. Default 1000. More are refused. With UDP flows, of
    /// which one client may have a quarter.
    #[schemars(range(min = 1, max = MAX_CONNECTIONS))]
    pub max_connections: u32,
    /// Bytes a second that all connections together may take on each controller, in each direction: such as
    /// "10Mi", from "1Ki" to "1Ti". Default: as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// Through whom the service is reached. Hive (the default): at the controllers themselves. Cloudflare: through
    /// its network, to which controllers connect by cloudflared. Tor: as an onion service. It cannot be changed.
    #[serde(skip_serializing_if = "Provider::is_hive")]
    pub provider: Provider,
    /// Only with provider Cloudflare, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloudflare: Option<Cloudflare>,
    /// Only with provider Tor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tor: Option<Tor>,
}

/// Through whom a service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provider {
    #[default]
    Hive,
    Cloudflare,
    Tor,
}

impl Provider {
    pub fn is_hive(&self) -> bool {
        *self == Self::Hive
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hive => "Hive",
            Self::Cloudflare => "Cloudflare",
            Self::Tor => "Tor",
        }
    }
}

/// Who the controllers are to Cloudflare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cloudflare {
    /// Name of a Secret of the same namespace. Without accountId its key tunnelToken is the token of a tunnel that
    /// was made at Cloudflare; with it its key apiToken is an API token that may edit tunnels and DNS.
    pub secret_name: String,
    /// The account in which the controllers make the tunnel, route spec.http.host to it and delete both with this
    /// object: 32 hexadecimal digits. Default: the tunnel was made by somebody else. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
}

/// What holds for an onion service. Its key is in the Secret `<name of the tunnel>-onion`, made where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tor {
    /// Public keys of the clients that can find the service, as "descriptor:x25519:<52 letters and digits>".
    /// Default: everybody who knows its address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_AUTHORIZED_CLIENTS), extend("x-kubernetes-list-type" = "atomic"))]
    pub authorized_clients: Vec<String>,
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Http,
    Tcp,
    Tls,
    Udp,
}

impl Protocol {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
        }
    }
}

/// What is spoken to the targets of an HTTP tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum TargetProtocol {
    #[default]
    Http1,
    H2c,
}

impl TargetProtocol {
    pub fn is_http1(&self) -> bool {
        *self == Self::Http1
    }
}

/// A place where a service listens, as a node reaches it.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TunnelTarget {
    /// Name of the node that connects to it.
    pub node: String,
    /// Name or address as the node reaches it: itself, or another machine in its network. Default
    /// "127.0.0.1". The node's agent must allow it; by default it allows the node itself and private
    /// networks.
    #[serde(default = "default_host")]
    pub host: String,
    /// The port where the service listens: 1 to 65535.
    #[schemars(range(min = 1))]
    pub port: u16,
}

impl TunnelTarget {
    /// `127.0.0.1:3000`, `[fd00::1]:80`, `nas.lan:443`.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// What a target is told about the client, before anything that the client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProxyProtocol {
    #[default]
    None,
    V1,
    V2,
}

impl ProxyProtocol {
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How it is found out which targets answer. Connections that fail tell it as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthCheck {
    /// How often each controller asks each target, from "1s" to "1h". Default "10s".
    pub interval: GoDuration,
    /// How long the answer may take, from "100ms" to "1m". Default "5s".
    pub timeout: GoDuration,
    /// What is asked by GET: the target is well if it answers with 200 to 399. Only with HTTP. Default: it is
    /// well if it takes a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is sent, in base64, 1 to 1200 bytes of it: the target is well if it answers anything. Only with UDP.
    /// Default: it is well unless its system says that nobody listens, and whether it answers is not proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

impl HealthCheck {
    /// What a target of UDP is asked with.
    pub fn datagram(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.payload.as_ref()?).ok()
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: GoDuration(Duration::from_secs(10)),
            timeout: GoDuration(Duration::from_secs(5)),
            path: None,
            payload: None,
        }
    }
}

impl Default for TunnelSpec {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            http: None,
            port: None,
            server_names: Vec::new(),
            tls: None,
            target_protocol: TargetProtocol::default(),
            targets: Vec::new(),
            function: None,
            proxy_protocol: ProxyProtocol::default(),
            access: None,
            health_check: HealthCheck::default(),
            connect_timeout: GoDuration(Duration::from_secs(5)),
            // Quiet sessions, such as of ssh, stay over lunch.
            idle_timeout: GoDuration(Duration::from_secs(3600)),
            max_connections: 1000,
            bandwidth: None,
            provider: Provider::default(),
            cloudflare: None,
            tor: None,
        }
    }
}

impl TunnelSpec {
    /// How long a connection may be silent; `None` for as long as it likes.
    pub fn idle_limit(&self) -> Option<Duration> {
        Some(self.idle_timeout.0).filter(|limit| !limit.is_zero())
    }

    /// Whether its certificate is ordered by ACME.
    pub fn wants_acme(&self) -> bool {
        self.protocol == Protocol::Http && self.tls.as_ref().is_some_and(|tls| tls.acme)
    }

    /// The Secret of type `kubernetes.io/tls` with the tunnel's certificate, in its namespace.
    pub fn certificate_secret(&self, tunnel: &str) -> Option<String> {
        match self.wants_acme() {
            true => Some(format!("{tunnel}-acme")),
            false => self.tls.as_ref()?.secret_name.clone(),
        }
    }
}

pub(crate) fn default_host() -> String {
    "127.0.0.1".to_owned()
}
