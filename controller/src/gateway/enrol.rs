//! Letting processes in: a token or a known device key, and a signing request, for a certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hive_identity::{
    CertificateAuthority, DEFAULT_LIFETIME, IssuedCertificate, KeyFingerprint, Subject, TokenSecret,
};
use hive_manifests::Resource;
use hive_proto::v1::enrolment_server::Enrolment;
use hive_proto::v1::{
    ControllerAdmission, ControllerRole, EnrolRequest, EnrolResponse, NodeRole, enrol_request,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::audited::Record;
use super::endpoints;
use super::status::{self, from_propose};
use crate::access::tokens::{self, Token, TokenError, TokenKind, Use};
use crate::audit::Audit;
use crate::node_record::NodeRecord;
use crate::objects::{self, EditError, Writer};
use crate::state::{Command, Key, Member, Outcome, Rejection, level};
use crate::store::{ProposeError, Replica};
use crate::together::Together;

/// Of an event in the audit log: the key that was certified, by its fingerprint.
const DEVICE_KEY: &str = "hive.dev/device-key";

/// Enrolments at once. Each asks the leader before it looks at a token, and whoever reaches the
/// port may ask for one.
const AT_ONCE: usize = 16;

/// For its turn; the agents wait a little longer for an answer, and then go to the next controller.
const TURN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct EnrolmentService {
    replica: Replica,
    together: Together,
    authority: Arc<CertificateAuthority>,
    /// Of certificates for nodes; at most the default.
    lifetime: Duration,
    turns: Arc<Semaphore>,
    pub(super) audit: Audit,
}

impl EnrolmentService {
    pub fn new(
        together: Together,
        authority: Arc<CertificateAuthority>,
        lifetime: Duration,
        audit: Audit,
    ) -> Self {
        Self {
            audit,
            replica: together.replica().clone(),
            together,
            authority,
            lifetime: lifetime.min(DEFAULT_LIFETIME),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn issue(
        &self,
        csr: &[u8],
        subject: &Subject,
        names: &[String],
    ) -> Result<IssuedCertificate, Status> {
        self.authority
            .issue(csr, subject, names, SystemTime::now(), self.lifetime)
            .map_err(|e| Status::invalid_argument(format!("csr: {e}")))
    }

    async fn enrol_node(
        &self,
        secret: &str,
        csr: &[u8],
        role: NodeRole,
        record: &mut Record,
    ) -> Result<EnrolResponse, Status> {
        let name = role.name;
        if !is_dns_label(&name) {
            return Err(Status::invalid_argument(format!(
                "node name {name:?}: use at most 63 lower-case letters, digits and \"-\", beginning and ending with a letter or digit"
            )));
        }
        let issued = self.issue(csr, &Subject::Node { name: name.clone() }, &[])?;
        record.note(DEVICE_KEY, issued.key.to_string());
        let key = objects::node_key(&name);
        // A follower that lags could take a removed node for a known one.
        self.replica.read_barrier().await.map_err(from_propose)?;
        let known = self.known_key(&key);
        if secret.is_empty() {
            match known {
                Some(fingerprint) if fingerprint == issued.key.to_string() => record.node(&name),
                Some(_) => {
                    return Err(Status::permission_denied(format!(
                        "node {name:?} belongs to another device key"
                    )));
                }
                None => {
                    return Err(Status::permission_denied(format!(
                        "node {name:?} is not part of this swarm: it was removed, or never joined. Join it with a token (`hivectl token create --kind join`)"
                    )));
                }
            }
        } else {
            let token = self.check_token(secret, TokenKind::Join, &issued.key)?;
            record.token(&token.key.name);
            match known {
                Some(fingerprint) if fingerprint == issued.key.to_string() => {}
                Some(_) => {
                    return Err(Status::already_exists(format!(
                        "the name {name:?} belongs to another device: choose another with --name, or remove the old one with `hivectl delete node {name}`"
                    )));
                }
                None => {
                    self.use_token(&token, &issued.key).await?;
                    self.create_node(key, &issued.key).await?;
                    tracing::info!(node = name, key = %issued.key, "node joined");
                }
            }
        }
        Ok(self.response(issued, None))
    }

    fn known_key(&self, key: &Key) -> Option<String> {
        let state = self.replica.state();
        Some(NodeRecord::of(state.get(key)?).key().to_owned())
    }

    async fn create_node(&self, key: Key, fingerprint: &KeyFingerprint) -> Result<(), Status> {
        let body = objects::fresh(
            &key,
            json!({ "kubernetes.io/hostname": key.name }),
            json!({ "spec": { "key": fingerprint.to_string() } }),
        );
        let name = key.name.clone();
        match self
            .together
            .write(Command::Create {
                key,
                body: body.into(),
            })
            .await
        {
            Ok(()) => Ok(()),
            Err(ProposeError::Rejected(Rejection::AlreadyExists)) => {
                Err(Status::already_exists(format!(
                    "another device took the name {name:?} at this moment: choose another with --name"
                )))
            }
            Err(error) => Err(from_propose(error)),
        }
    }

    async fn enrol_controller(
        &self,
        secret: &str,
        csr: &[u8],
        role: ControllerRole,
        record: &mut Record,
    ) -> Result<EnrolResponse, Status> {
        let endpoint = role
            .endpoint
            .ok_or_else(|| Status::invalid_argument("controller.endpoint is required"))?;
        let member = Member {
            link: endpoint.link,
            api: endpoint.api,
            ingress: endpoint.ingress,
            ingress_tls: Some(endpoint.ingress_tls).filter(|it| !it.is_empty()),
        };
        let names = api_names(&member);
        self.replica.read_barrier().await.map_err(from_propose)?;
        // The request is checked before anything is written: its id is not known yet.
        let key = self
            .issue(csr, &Subject::Controller { raft_id: 0 }, &names)?
            .key;
        record.note(DEVICE_KEY, key.to_string());
        let token = self.check_token(secret, TokenKind::ControllerJoin, &key)?;
        record.token(&token.key.name);
        let state = self.replica.state();
        if role.level.max(level::FIRST) < state.level() {
            return Err(Status::invalid_argument(format!(
                "this swarm's controllers have agreed on commands of level {}, and this program knows those up \
                 to level {}: join with the version that the others run ({} here)",
                state.level(),
                role.level.max(level::FIRST),
                env!("CARGO_PKG_VERSION"),
            )));
        }
        self.use_token(&token, &key).await?;
        let member = member.known_at(state.level());
        let command = match state.level() {
            // Members of the first release do not know admission by key.
            level::FIRST => Command::AdmitController {
                member: member.clone(),
            },
            _ => Command::AdmitDevice {
                key: key.to_string(),
                member: member.clone(),
            },
        };
        let outcome = self.replica.propose(command).await.map_err(from_propose)?;
        let Outcome::Controller(raft_id) = outcome else {
            unreachable!("an admission is answered by an id, not {outcome:?}");
        };
        record.about("controllers", &raft_id.to_string(), "");
        tracing::info!(
            controller = raft_id,
            link = member.link,
            "controller admitted"
        );
        let issued = self.issue(csr, &Subject::Controller { raft_id }, &names)?;
        let admission = ControllerAdmission {
            raft_id,
            ca_key: self.authority.key_pem(),
        };
        Ok(self.response(issued, Some(admission)))
    }

    fn check_token(
        &self,
        secret: &str,
        kind: TokenKind,
        key: &KeyFingerprint,
    ) -> Result<Token, Status> {
        let secret = TokenSecret::parse(secret)
            .map_err(|e| Status::unauthenticated(format!("token: {e}")))?;
        let key = key.to_string();
        tokens::check_for_key(
            &self.replica.state(),
            &secret,
            kind,
            &key,
            SystemTime::now(),
        )
        .map_err(|e| Status::unauthenticated(e.to_string()))
    }

    async fn use_token(&self, token: &Token, key: &KeyFingerprint) -> Result<(), Status> {
        // Checked again inside the edit: two joins must not share a last use.
        let mut used_up = false;
        let key = key.to_string();
        objects::edit(&self.replica, &token.key, |body| {
            let used = tokens::count_use(body, &key);
            used_up = used == Use::Refused;
            used == Use::Counted
        })
        .await
        .map_err(|error| match error {
            // Revoked at this moment.
            EditError::NotFound(_) => Status::unauthenticated(TokenError::Unknown.to_string()),
            error => status::from_edit(error),
        })?;
        if used_up {
            return Err(Status::unauthenticated(TokenError::UsedUp.to_string()));
        }
        Ok(())
    }

    fn response(
        &self,
        issued: IssuedCertificate,
        admission: Option<ControllerAdmission>,
    ) -> EnrolResponse {
        let ca = self.authority.certificate();
        EnrolResponse {
            certificate: issued.der.to_vec(),
            ca: ca.der().to_vec(),
            cluster: ca.cluster().to_owned(),
            controllers: endpoints(&self.replica.state()),
            admission,
        }
    }

    /// A fresh certificate for a node whose certificate is still good.
    pub fn renew(
        &self,
        csr: &[u8],
        node: &str,
        key: &KeyFingerprint,
    ) -> Result<IssuedCertificate, Status> {
        let issued = self.issue(
            csr,
            &Subject::Node {
                name: node.to_owned(),
            },
            &[],
        )?;
        if issued.key != *key {
            return Err(Status::permission_denied(
                "csr: a certificate is renewed for the key it was issued to",
            ));
        }
        Ok(issued)
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let _turn = tokio::time::timeout(TURN, self.turns.acquire())
            .await
            .map_err(|_| Status::unavailable("too many join at once: try again soon"))?;
        self.audit
            .admit()
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut record = Record::begin(&request, "/hive.v1.Enrolment/Enrol", "create");
        let EnrolRequest { secret, csr, role } = request.into_inner();
        let enrolled = match role {
            Some(enrol_request::Role::Node(role)) => {
                record.about("nodes", &role.name, "");
                self.enrol_node(&secret, &csr, role, &mut record).await
            }
            Some(enrol_request::Role::Controller(role)) => {
                // Its id is known when it is admitted.
                record.about("controllers", "", "");
                self.enrol_controller(&secret, &csr, role, &mut record)
                    .await
            }
            None => Err(Status::invalid_argument("role is required")),
        };
        record.ended(&self.audit, &enrolled).await;
        enrolled.map(Response::new)
    }
}

/// DNS names and addresses that a controller's certificate carries for its API.
pub fn api_names(member: &Member) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for endpoint in [&member.link, &member.api, &member.ingress] {
        if let Some((host, _)) = endpoint.rsplit_once(':') {
            let host = host.trim_matches(['[', ']']).to_owned();
            if !host.is_empty() && !names.contains(&host) {
                names.push(host);
            }
        }
    }
    names
}

/// RFC 1123.
fn is_dns_label(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|c| inner(*c))
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// True when `key` is that of an enrolled node.
pub fn is_enrolled(state: &crate::state::State, node: &str, key: &KeyFingerprint) -> bool {
    state
        .get(&Key::new(Resource::Node, "", node))
        .is_some_and(|object| NodeRecord::of(object).key() == key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_dns_labels() {
        for good in ["a", "pi-3", "n0", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn a_controllers_certificate_names_where_it_listens() {
        let member = Member {
            link: "10.0.0.1:7443".into(),
            api: "[fd00::1]:6443".into(),
            ingress: "hive.example.org:80".into(),
            ingress_tls: None,
        };
        let names = api_names(&member);
        for name in ["localhost", "10.0.0.1", "fd00::1", "hive.example.org"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}
