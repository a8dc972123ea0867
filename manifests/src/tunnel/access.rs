//! Who may use a tunnel, and how they say who they are.
//!
//! Rules that a type cannot express are in `validate/tunnel/access.rs`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;

/// Each is looked at for every request of a stranger.
pub const MAX_CLIENTS: usize = 256;
/// More than one controller's ingress answers.
pub const MAX_RATE: u32 = 100_000;
/// Whoever lets more people in by name has a group for them.
pub const MAX_NAMES: usize = 256;
/// More than any issuer gives.
pub const MAX_SCOPES: usize = 16;
/// Below it people would see nothing but the issuer.
pub const MIN_SESSION: Duration = Duration::from_secs(5 * 60);
/// Who left the house is to be known as such some day.
pub const MAX_SESSION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Who may use a tunnel. Clients must come from an allowed address, not too often; where there are ways to say who
/// one is, one of them must be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Networks and addresses from which clients may come, such as "203.0.113.0/24", "2001:db8::/32" or
    /// "203.0.113.7". Default: from everywhere. Others are refused before anything is opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CLIENTS), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_clients: Vec<String>,
    /// How often each client may come, by its address. Default: as often as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Names and passwords. Only with HTTP, and to be used behind TLS only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Tokens of an OpenID Connect issuer, in the header Authorization. Only with HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Bearer>,
    /// A login in front of browsers, at an OpenID Connect issuer. Only with HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcLogin>,
}

impl Access {
    /// There is something that a client must say of itself.
    pub fn asks_who(&self) -> bool {
        self.basic_auth.is_some() || self.bearer.is_some() || self.oidc.is_some()
    }

    /// Some client may be turned away.
    pub fn guards(&self) -> bool {
        !self.allowed_clients.is_empty() || self.rate_limit.is_some() || self.asks_who()
    }
}

/// How often a client may come, on each controller. IPv6 clients are counted by their network of 64 bits, which one
/// client has as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests a second in the long run, with HTTP; else connections: 1 to 100000.
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub requests_per_second: u32,
    /// How many may come at once after a while of silence: 1 to 100000. Default: requestsPerSecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub burst: Option<u32>,
}

/// Names and passwords of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// Name of a Secret of the same namespace whose key "auth" has lines as `htpasswd -B` writes them: a name, a
    /// colon, and a hash of bcrypt.
    pub secret_name: String,
    /// Whether the service gets name and password as well. Default false: it gets the name in X-Hive-User.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

/// Tokens of an OpenID Connect issuer: JSON Web Tokens, signed RS256, ES256 or EdDSA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bearer {
    /// The issuer, an https URL, as it calls itself.
    pub issuer_url: String,
    /// For whom tokens must be made: their claim "aud".
    pub audience: String,
    /// The claim that lists somebody's groups. Default "groups".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// Whose tokens are taken. Default: everybody's.
    #[serde(default, skip_serializing_if = "Allow::is_empty")]
    pub allow: Allow,
    /// Whether the service gets the token as well. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

/// A login at an OpenID Connect issuer: by an authorization code with PKCE. Redirect URI to register there:
/// "<the tunnel's address>/.hive/callback". People sign out at "/.hive/logout" beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcLogin {
    /// The issuer, an https URL, as it calls itself.
    pub issuer_url: String,
    /// As what the tunnel is registered at the issuer.
    pub client_id: String,
    /// Name of a Secret of the same namespace whose key "clientSecret" has the client's secret. Default: the client
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// What to ask the issuer for besides "openid", at most 16. Default "email" and "profile".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SCOPES))]
    pub scopes: Vec<String>,
    /// The claim that lists somebody's groups. Default "groups".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// Who is let in. Default: everybody who can sign in there.
    #[serde(default, skip_serializing_if = "Allow::is_empty")]
    pub allow: Allow,
    /// How long somebody stays signed in, from "5m" to "720h". Default "12h".
    #[serde(default = "default_session")]
    pub session_duration: GoDuration,
}

pub(crate) fn default_session() -> GoDuration {
    GoDuration(Duration::from_secs(12 * 3600))
}

/// Who is let in: whom one of the lists names. If all are empty, everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Allow {
    /// Addresses of e-mail, which the issuer must not call unverified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_NAMES))]
    pub emails: Vec<String>,
    /// Domains of such addresses: what is behind the @.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_NAMES))]
    pub domains: Vec<String>,
    /// Groups, as the issuer calls them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_NAMES))]
    pub groups: Vec<String>,
}

impl Allow {
    pub fn is_empty(&self) -> bool {
        self.emails.is_empty() && self.domains.is_empty() && self.groups.is_empty()
    }
}
