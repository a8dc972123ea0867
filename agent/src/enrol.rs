//! Joining the swarm: a device key that stays, a certificate for it from any controller.
//!
//! The first time a token proves that this machine may join, and pins the CA that it may trust. A
//! node whose certificate ran out while it was away proves itself by its key, and trusts the CA that
//! it stored. Nothing is kept that the CA didn't vouch for.

use std::path::Path;
use std::time::Duration;

use hive_identity::{
    CaCertificate, CaError, CaFingerprint, Credentials, CredentialsError, DeviceKey, JoinToken,
    KeyError, StoreError, Subject, TokenSecret, tls,
};
use hive_proto::grpc;
use hive_proto::link::{DialError, LinkSettings, dial};
use hive_proto::v1;
use hive_proto::v1::enrol_request::Role;
use hive_proto::v1::enrolment_client::EnrolmentClient;
use rustls_pki_types::CertificateDer;
use tonic::{Code, Status};

use crate::reconcile::backoff::backoff;

/// A controller asks its majority before it admits a node; on a slow SD card that takes a while.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Waits between rounds end here: whoever starts an agent before its controllers watches it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "this machine has not joined a swarm yet: give a token (--token-file, --token or HIVE_TOKEN); \
         `hivectl token create --kind join` makes one"
    )]
    NoToken,
    #[error("no controller to join at: give --controllers host:port")]
    NoControllers,
    #[error("cannot keep this machine's identity")]
    Store(#[from] StoreError),
    #[error("cannot ask for a certificate")]
    Key(#[source] KeyError),
    #[error("cannot reach {endpoint}")]
    Unreachable {
        endpoint: String,
        #[source]
        source: DialError,
    },
    #[error(
        "{endpoint} is not a controller of the swarm that the token is for: the token may be of another \
         swarm, or the address of another program"
    )]
    Stranger {
        endpoint: String,
        #[source]
        source: DialError,
    },
    #[error("{endpoint} refuses to let this machine in: {}", .status.message())]
    Refused {
        endpoint: String,
        status: Box<Status>,
    },
    #[error("{endpoint} cannot answer now: {}", .status.message())]
    Unavailable {
        endpoint: String,
        status: Box<Status>,
    },
    #[error("{endpoint} sent a CA that cannot be used")]
    Ca {
        endpoint: String,
        #[source]
        source: CaError,
    },
    #[error("{endpoint} sent another CA than the one that was asked for")]
    OtherCa { endpoint: String },
    #[error("{endpoint} sent a certificate that cannot be used")]
    Certificate {
        endpoint: String,
        #[source]
        source: CredentialsError,
    },
    #[error("{endpoint} sent a certificate for {subject}")]
    OtherSubject { endpoint: String, subject: String },
}

impl EnrolError {
    /// Whether it may work later without anybody changing something.
    pub fn can_retry(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => source.can_retry(),
            Self::Unavailable { .. } => true,
            Self::NoToken
            | Self::NoControllers
            | Self::Store(_)
            | Self::Key(_)
            | Self::Stranger { .. }
            | Self::Refused { .. }
            | Self::Ca { .. }
            | Self::OtherCa { .. }
            | Self::Certificate { .. }
            | Self::OtherSubject { .. } => false,
        }
    }
}

/// What enrolling gave.
pub struct Enrolled {
    pub credentials: Credentials,
    /// As the swarm names them; those that were asked, if it doesn't.
    pub controllers: Vec<v1::Endpoint>,
}

/// Whom to ask, and as whom.
pub struct Enrolment<'a> {
    /// Where keys and certificates are kept; `None` of a simulated node, which keeps nothing.
    pub dir: Option<&'a Path>,
    pub name: &'a str,
    pub info: v1::NodeInfo,
    pub controllers: Vec<String>,
    pub settings: LinkSettings,
}

impl Enrolment<'_> {
    /// Joins with a token; tries for as long as trying can help.
    pub async fn join(&self, token: Option<&JoinToken>) -> Result<Enrolled, EnrolError> {
        let token = token.ok_or(EnrolError::NoToken)?;
        let key = match self.dir {
            Some(dir) => own_key(dir)?,
            None => DeviceKey::generate(),
        };
        let mut rounds = 0;
        loop {
            match self.ask_all(&key, token.ca, Some(&token.secret)).await {
                Err(error) if error.can_retry() => {
                    rounds += 1;
                    let wait = backoff(rounds).min(LONGEST_WAIT);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        ?wait,
                        "cannot join yet"
                    );
                    tokio::time::sleep(wait).await;
                }
                done => return done,
            }
        }
    }

    /// Gets a certificate for the key that the swarm knows; one round.
    pub async fn come_back(&self, old: &Credentials) -> Result<Enrolled, EnrolError> {
        self.ask_all(old.key(), old.ca().fingerprint(), None).await
    }

    /// Asks one controller after another. If all fail, what trying again can't help is told.
    async fn ask_all(
        &self,
        key: &DeviceKey,
        ca: CaFingerprint,
        secret: Option<&TokenSecret>,
    ) -> Result<Enrolled, EnrolError> {
        let mut worst: Option<EnrolError> = None;
        for endpoint in &self.controllers {
            match self.ask(endpoint, key, ca, secret).await {
                Ok(enrolled) => {
                    if let Some(dir) = self.dir {
                        enrolled.credentials.save(dir)?;
                    }
                    return Ok(enrolled);
                }
                Err(error) => {
                    if worst.as_ref().is_none_or(EnrolError::can_retry) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or(EnrolError::NoControllers))
    }

    async fn ask(
        &self,
        endpoint: &str,
        key: &DeviceKey,
        ca: CaFingerprint,
        secret: Option<&TokenSecret>,
    ) -> Result<Enrolled, EnrolError> {
        let named = || endpoint.to_owned();
        let config = tls::enrol_client_config(ca);
        let link = dial(endpoint, config, &self.settings)
            .await
            .map_err(|source| match source {
                DialError::Tls(_) => EnrolError::Stranger {
                    endpoint: named(),
                    source,
                },
                source => EnrolError::Unreachable {
                    endpoint: named(),
                    source,
                },
            })?;
        let request = v1::EnrolRequest {
            secret: secret.map(TokenSecret::to_string).unwrap_or_default(),
            csr: key.csr().map_err(EnrolError::Key)?,
            role: Some(Role::Node(v1::NodeRole {
                name: self.name.to_owned(),
                info: Some(self.info.clone()),
            })),
        };
        let mut client = EnrolmentClient::new(grpc::channel(link.clone()));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.enrol(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        let response = answer.map_err(|status| refusal(named(), status))?;
        link.close("enrolled");
        self.check(endpoint, key, ca, response.into_inner())
    }

    /// Only what fits together, and is for this node, is taken.
    fn check(
        &self,
        endpoint: &str,
        key: &DeviceKey,
        expected: CaFingerprint,
        response: v1::EnrolResponse,
    ) -> Result<Enrolled, EnrolError> {
        let named = || endpoint.to_owned();
        let ca = CaCertificate::from_der(&response.ca).map_err(|source| EnrolError::Ca {
            endpoint: named(),
            source,
        })?;
        if ca.fingerprint() != expected {
            return Err(EnrolError::OtherCa { endpoint: named() });
        }
        let certificate = CertificateDer::from(response.certificate);
        let credentials = Credentials::new(key.clone(), certificate, ca).map_err(|source| {
            EnrolError::Certificate {
                endpoint: named(),
                source,
            }
        })?;
        let subject = &credentials.own().subject;
        if !matches!(subject, Subject::Node { name } if name == self.name) {
            return Err(EnrolError::OtherSubject {
                endpoint: named(),
                subject: subject.to_string(),
            });
        }
        let mut controllers = response.controllers;
        if controllers.is_empty() {
            let asked = self.controllers.iter().map(|link| v1::Endpoint {
                link: link.clone(),
                ..Default::default()
            });
            controllers.extend(asked);
        }
        Ok(Enrolled {
            credentials,
            controllers,
        })
    }
}

/// The device's key, which is made once.
fn own_key(dir: &Path) -> Result<DeviceKey, StoreError> {
    match DeviceKey::load(dir) {
        Err(missing) if missing.is_missing() => {
            let key = DeviceKey::generate();
            // Before it is used: the swarm must not know a key that a power cut took.
            key.save(dir)?;
            Ok(key)
        }
        loaded => loaded,
    }
}

fn refusal(endpoint: String, status: Status) -> EnrolError {
    let status = Box::new(status);
    match status.code() {
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => EnrolError::Refused { endpoint, status },
        _ => EnrolError::Unavailable { endpoint, status },
    }
}
