//! The certificate of this controller: every controller holds the CA's key and issues its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hive_identity::{
    CertificateAuthority, Credentials, CredentialsError, DEFAULT_LIFETIME, DeviceKey, IssueError,
    KeyError, LiveCredentials, Subject,
};
use tokio_util::sync::CancellationToken;

use crate::gateway::api_names;
use crate::state::Member;

/// A clock that jumps is noticed within this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    #[error("cannot make a signing request")]
    Key(#[from] KeyError),
    #[error("cannot issue this controller's certificate")]
    Issue(#[from] IssueError),
    #[error("the certificate does not fit this controller")]
    Credentials(#[from] CredentialsError),
}

/// Fresh credentials for this controller.
pub fn issue(
    authority: &CertificateAuthority,
    key: DeviceKey,
    raft_id: u64,
    member: &Member,
) -> Result<Credentials, OwnCertificateError> {
    let issued = authority.issue(
        &key.csr()?,
        &Subject::Controller { raft_id },
        &api_names(member),
        SystemTime::now(),
        DEFAULT_LIFETIME,
    )?;
    Ok(Credentials::new(
        key,
        issued.der,
        authority.certificate().clone(),
    )?)
}

/// Renews at two thirds of the lifetime, live: the next handshake shows the new certificate.
pub async fn keep_fresh(
    live: LiveCredentials,
    authority: Arc<CertificateAuthority>,
    raft_id: u64,
    member: Member,
    cancel: CancellationToken,
) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
        let current = live.current();
        if SystemTime::now() < current.renew_at() {
            continue;
        }
        match issue(&authority, current.key().clone(), raft_id, &member) {
            Ok(fresh) => {
                live.replace(fresh)
                    .expect("issued by the CA that issued the one before");
                tracing::info!("renewed this controller's certificate");
            }
            Err(error) => tracing::error!(%error, "cannot renew this controller's certificate"),
        }
    }
}
