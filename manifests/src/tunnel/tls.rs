//! How a tunnel of HTTP is served by https.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;

/// Names of one service and its aliases; more are more tunnels.
pub const MAX_SERVER_NAMES: usize = 16;
/// Two years, as the lists that browsers carry ask for.
pub const MAX_HSTS_AGE: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// How a tunnel is served by https.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// Name of a Secret of the same namespace, of type kubernetes.io/tls: its tls.crt has the certificate for
    /// the tunnel's hosts and its chain, its tls.key the private key, in PEM. With a ca.crt, the controllers
    /// trust that when they try the tunnel, instead of what browsers trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Whether the leader orders a certificate for the tunnel's hosts by ACME, and renews it; not together with
    /// secretName. The hosts must lead to the controllers, and the swarm's settings say which authority is
    /// asked. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub acme: bool,
    /// Whether requests by http are told to come by https (308). Default true.
    pub redirect: bool,
    /// For how long browsers shall come by https only (Strict-Transport-Security), up to "17520h". Default:
    /// they are not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts_max_age: Option<GoDuration>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            secret_name: None,
            acme: false,
            redirect: true,
            hsts_max_age: None,
        }
    }
}
