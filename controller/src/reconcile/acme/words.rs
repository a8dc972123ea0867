//! What went wrong with an order, in words: the authority's own where it has some. Its words are bounded, and its
//! addresses are no secrets.

use instant_acme::{Error, Problem};
use jiff::Timestamp;

use super::plan::{BUSY, LIMITED, Trouble};
use super::settings::Settings;
use crate::gateway::bounds::cut;
use crate::objects::EditError;
use crate::reconcile::tunnels::Why;

/// Bytes of what an authority says: some quote the page that they found.
const MAX_WORDS: usize = 512;

/// Why an order did not bring a certificate.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Authority(#[from] Error),
    #[error("cannot note how far the order is")]
    Note(#[from] EditError),
    #[error("the order was closed meanwhile")]
    Closed,
    #[error("{name} was not proven")]
    Unproven {
        name: String,
        problem: Option<Problem>,
    },
    #[error("the authority offers no challenge for {0} that is understood here")]
    NoChallenge(String),
    #[error("the request for the certificate cannot be made")]
    Request(#[from] rcgen::Error),
    #[error("the certificate is not what was ordered: {0}")]
    Certificate(String),
    #[error("the Secret for the certificate is somebody else's now")]
    Secret,
    #[error(
        "by the clock of the controller that leads, the certificate is to be renewed already: look at the clock"
    )]
    Outlived,
    #[error("{}", .0.message)]
    Name(Why),
}

impl OrderError {
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Authority(Error::Api(problem)) => match kind(problem) {
                // It may be another account's, or a nonce got lost.
                "serverInternal" | "badNonce" | "accountDoesNotExist" => Trouble::Passing,
                _ if problem.status.is_some_and(|status| status >= 500) => Trouble::Passing,
                _ => Trouble::Final,
            },
            Self::Authority(_) | Self::Note(_) => Trouble::Passing,
            Self::Name(_) => Trouble::Name,
            Self::Closed
            | Self::Unproven { .. }
            | Self::NoChallenge(_)
            | Self::Request(_)
            | Self::Certificate(_)
            | Self::Secret
            | Self::Outlived => Trouble::Final,
        }
    }

    /// The account is to be registered anew.
    pub fn forgets_account(&self) -> bool {
        matches!(self, Self::Authority(Error::Api(problem)) if kind(problem) == "accountDoesNotExist")
    }

    /// For people. `pause` is until when the authority wants to be left alone.
    pub fn why(&self, settings: &Settings, pause: Option<Timestamp>) -> Why {
        let authority = settings.authority();
        match self {
            Self::Authority(Error::Api(problem)) => said(authority, problem),
            Self::Authority(Error::Timeout(_)) => {
                let message = format!("{authority} is not done with the order yet");
                Why::new("AuthoritySlow", message)
            }
            Self::Authority(error) if pause.is_some() => {
                let message = format!("{authority} wants to be left alone ({})", chain(error));
                Why::new(BUSY, message)
            }
            Self::Authority(error) => {
                let message = format!("{authority} cannot be asked: {}", chain(error));
                Why::new("AuthorityUnreachable", message)
            }
            Self::Unproven { name, problem } => {
                let words = match problem {
                    Some(problem) => said(authority, problem).message,
                    None => format!("{authority} gives no reason"),
                };
                Why::new("NameNotProven", format!("{name} was not proven: {words}"))
            }
            Self::Name(why) => why.clone(),
            Self::Note(error) => Why::new("NotWritten", format!("{self}: {}", chain(error))),
            Self::Closed => Why::new("OrderClosed", self.to_string()),
            Self::NoChallenge(_) => Why::new("NoChallenge", self.to_string()),
            Self::Request(error) => Why::new("RequestFailed", format!("{self}: {error}")),
            Self::Certificate(_) => Why::new("CertificateInvalid", self.to_string()),
            Self::Secret => Why::new("SecretTaken", self.to_string()),
            Self::Outlived => Why::new("CertificateOutlived", self.to_string()),
        }
    }
}

/// The last part of a problem's type.
pub fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.rsplit(':').next().unwrap_or_default()
}

fn said(authority: &str, problem: &Problem) -> Why {
    let mut words = problem.detail.clone().unwrap_or_default();
    for other in &problem.subproblems {
        let Some(detail) = &other.detail else {
            continue;
        };
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(detail);
    }
    words.retain(|c| !c.is_control());
    cut(&mut words, MAX_WORDS);
    if words.is_empty() {
        words = format!("{:?} without a reason", kind(problem));
    }
    let (reason, help) = match kind(problem) {
        "rateLimited" => (LIMITED, ""),
        "dns" => ("OrderFailed", ": look at the DNS records of the host"),
        "connection" => (
            "OrderFailed",
            ": let the host's ports 80 and 443 lead to the controllers, from everywhere",
        ),
        "unauthorized" => (
            "OrderFailed",
            ": let nothing but controllers answer at the host",
        ),
        "caa" => (
            "OrderFailed",
            ": let the CAA records of the host name this authority",
        ),
        "rejectedIdentifier" => ("OrderFailed", ": name another host, or another authority"),
        _ => ("OrderFailed", ""),
    };
    Why::new(reason, format!("{authority} says: {words}{help}"))
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = error.source();
    }
    words.retain(|c| !c.is_control());
    cut(&mut words, MAX_WORDS);
    words
}
