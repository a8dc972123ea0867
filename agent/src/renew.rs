//! A new certificate before the old one ends: over a link that there is, at two thirds of its life.
//! If it ended nevertheless, because this node was cut off for long, the device key enrols again.
//! New credentials are on the disk before they are used; links that exist go on as they are.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hive_identity::{
    Credentials, CredentialsError, DifferentCa, KeyError, LiveCredentials, StoreError, Subject,
};
use hive_proto::grpc;
use hive_proto::link::LinkSettings;
use hive_proto::v1::gateway_client::GatewayClient;
use hive_proto::v1::{NodeInfo, RenewRequest};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::declared::Declared;
use crate::enrol::{EnrolError, Enrolment};
use crate::links::Links;
use crate::reconcile::backoff::backoff;

/// Clocks of machines without a battery jump by years when they find the time: look often.
const LOOK_EVERY: Duration = Duration::from_secs(600);

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Holds what renewal needs; [`Renewal::run`] is the one task that has it.
pub struct Renewal {
    pub live: LiveCredentials,
    /// `None` of a simulated node, which keeps nothing.
    pub dir: Option<PathBuf>,
    pub info: NodeInfo,
    pub declared: Declared,
    pub links: Links,
    pub settings: LinkSettings,
}

/// What the clock asks for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing {
        look_again: Duration,
    },
    Renewal,
    /// The certificate is no good any more: no controller lets it in.
    Enrolment,
}

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("no controller is reachable")]
    NoLink,
    #[error("cannot ask for a certificate")]
    Key(#[source] KeyError),
    #[error("the controller does not renew: {}", .0.message())]
    Status(Box<Status>),
    #[error("the controller sent a certificate that cannot be used")]
    Certificate(#[source] CredentialsError),
    #[error("the controller sent a certificate for somebody else")]
    OtherSubject,
    #[error("cannot keep the certificate")]
    Store(#[source] StoreError),
    #[error("cannot use the certificate")]
    OtherCa(#[source] DifferentCa),
    #[error("cannot enrol again")]
    Enrol(#[source] EnrolError),
}

fn due(now: SystemTime, renew_at: SystemTime, not_after: SystemTime) -> Due {
    if now >= not_after {
        return Due::Enrolment;
    }
    match renew_at.duration_since(now) {
        Ok(wait) if !wait.is_zero() => Due::Nothing {
            look_again: wait.min(LOOK_EVERY),
        },
        _ => Due::Renewal,
    }
}

impl Renewal {
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_fresh()).await;
    }

    async fn keep_fresh(self) {
        let mut failures = 0;
        let mut links = self.links.changes();
        loop {
            let held = self.live.current();
            links.mark_unchanged();
            let done = match due(SystemTime::now(), held.renew_at(), held.not_after()) {
                Due::Nothing { look_again } => {
                    failures = 0;
                    tokio::time::sleep(look_again).await;
                    continue;
                }
                Due::Renewal => self.renew(&held).await,
                Due::Enrolment => self.enrol_again(&held).await,
            };
            let Err(error) = done else { continue };
            failures += 1;
            let wait = backoff(failures);
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                ?wait,
                "no new certificate"
            );
            // A link that comes is what most of these wait for.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = links.changed(), if matches!(error, RenewError::NoLink) => {
                    if changed.is_err() { return }
                }
            }
        }
    }

    async fn renew(&self, held: &Credentials) -> Result<(), RenewError> {
        let mut result = Err(RenewError::NoLink);
        for (_, link) in self.links.current() {
            let request = RenewRequest {
                csr: held.key().csr().map_err(RenewError::Key)?,
            };
            let mut gateway = GatewayClient::new(grpc::channel(link));
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, gateway.renew(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            result = match answer {
                Ok(response) => {
                    let certificate = CertificateDer::from(response.into_inner().certificate);
                    let renewed = held.renewed(certificate);
                    self.take(held, renewed.map_err(RenewError::Certificate)?)
                }
                Err(status) => Err(RenewError::Status(Box::new(status))),
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn enrol_again(&self, held: &Credentials) -> Result<(), RenewError> {
        let Subject::Node { name } = &held.own().subject else {
            return Err(RenewError::OtherSubject);
        };
        let controllers = self.declared.controllers().borrow().to_vec();
        let enrolment = Enrolment {
            dir: self.dir.as_deref(),
            name,
            info: self.info.clone(),
            controllers,
            settings: self.settings.clone(),
        };
        let enrolled = enrolment.come_back(held).await.map_err(RenewError::Enrol)?;
        self.take(held, enrolled.credentials)?;
        // The links that there were tried with a certificate that nobody takes.
        self.links.dial_anew();
        Ok(())
    }

    fn take(&self, held: &Credentials, fresh: Credentials) -> Result<(), RenewError> {
        if fresh.own().subject != held.own().subject {
            return Err(RenewError::OtherSubject);
        }
        if let Some(dir) = &self.dir {
            fresh.save(dir).map_err(RenewError::Store)?;
        }
        let valid_for = fresh.not_after().duration_since(SystemTime::now());
        self.live.replace(fresh).map_err(RenewError::OtherCa)?;
        tracing::info!(valid_for = ?valid_for.unwrap_or_default(), "certificate renewed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn renews_at_its_time_and_enrols_when_it_is_too_late() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let due = |now| due(at(now), at(2000), at(3000));
        let nothing = |seconds| Due::Nothing {
            look_again: Duration::from_secs(seconds),
        };
        assert_eq!(due(0), nothing(600), "long waits are cut");
        assert_eq!(due(1990), nothing(10));
        assert_eq!(due(2000), Due::Renewal);
        assert_eq!(due(2999), Due::Renewal);
        assert_eq!(due(3000), Due::Enrolment);
    }
}
