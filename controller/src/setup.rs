//! Making a controller: the first one of a new swarm, or another of one that exists.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use hive_identity::store::save_private;
use hive_identity::{
    ApiToken, CaCertificate, CertificateAuthority, Credentials, DeviceKey, JoinToken,
    LiveCredentials, tls,
};
use hive_manifests::Resource;
use hive_manifests::validate::validate_stored;
use hive_proto::grpc;
use hive_proto::link::{Link, LinkSettings, dial};
use hive_proto::v1::enrolment_client::EnrolmentClient;
use hive_proto::v1::{ControllerRole, Endpoint, EnrolRequest, EnrolResponse, enrol_request};
use serde_json::{Value, json};

use crate::access::tokens::{self, Role, SYSTEM_NAMESPACE, TokenKind};
use crate::config::{InitArgs, JoinArgs};
use crate::data_dir::{DataDirectory, SelfRecord};
use crate::identity_files::{IdentityError, IdentityFiles};
use crate::ingress::routes::SETTINGS;
use crate::kubeconfig::kubeconfig;
use crate::objects;
use crate::own_certificate;
use crate::peers::Peers;
use crate::reconcile::roles;
use crate::state::{Key, Member, level};
use crate::store::seal::keys::Keys;
use crate::store::{DiskSpeed, Replica, ReplicaOptions};

/// Namespaces of every swarm.
const NAMESPACES: [&str; 2] = ["default", SYSTEM_NAMESPACE];

/// The first controller has id 1; those that join get theirs from the state.
const FIRST_ID: u64 = 1;

/// The answer to an enrolment waits for a commit on a majority.
const ENROL_TIMEOUT: Duration = Duration::from_secs(30);

/// What `init` made.
pub struct Initialised {
    pub kubeconfig: PathBuf,
    pub cluster: String,
    pub member: Member,
    pub disk: Option<DiskSpeed>,
    /// Where the keys of the disk are.
    pub key_file: Option<PathBuf>,
}

/// Makes a new swarm: its CA, its first controller, its namespaces, its administrator.
pub async fn init(args: &InitArgs) -> anyhow::Result<Initialised> {
    check_cluster_name(&args.cluster)?;
    check_domain(&args.domain)?;
    let dir = DataDirectory::create(&args.data.data_dir)?;
    let member = args.addresses.member();
    let authority = CertificateAuthority::create(&args.cluster)?;
    let key = DeviceKey::generate();
    let keys = args.disk.keys(&args.data.data_dir)?;
    let identity = identity_files(&dir, &keys)?;
    identity.save_device_key(&key)?;
    identity.save_authority(&authority)?;
    let credentials = own_certificate::issue(&authority, key, FIRST_ID, &member)?;

    clear_raft(&dir)?;
    let live = LiveCredentials::new(credentials);
    let peers = Peers::new(live, LinkSettings::default(), FIRST_ID);
    let options = ReplicaOptions {
        dir: dir.raft(),
        id: FIRST_ID,
        timing: None,
        keys: keys.clone(),
    };
    let replica = Replica::start(options, peers).await?;
    // The rest is told once the swarm has agreed on its level.
    replica.bootstrap(member.known_at(level::FIRST)).await?;
    for name in NAMESPACES {
        let key = Key::new(Resource::Namespace, "", name);
        let labels = json!({ "kubernetes.io/metadata.name": name });
        let body = objects::fresh(&key, labels, json!({ "status": { "phase": "Active" } }));
        objects::ensure(&replica, key, body).await?;
    }
    let (key, body) = settings(&args.domain);
    objects::ensure(&replica, key, body).await?;
    let token = ApiToken::generate();
    let (key, body) =
        tokens::token_object(&token.secret, TokenKind::Api, Some(Role::Admin), None, None);
    objects::ensure(&replica, key, body).await?;
    roles::settle(&replica).await?;
    let disk = replica.disk_speed();
    replica.shutdown().await;

    let config = kubeconfig(
        authority.certificate(),
        std::slice::from_ref(&member.api),
        "admin",
        &token.to_string(),
    );
    let text = serde_json::to_vec_pretty(&config)?;
    save_private(&dir.kubeconfig(), &text)?;
    dir.save(&SelfRecord {
        raft_id: FIRST_ID,
        cluster: args.cluster.clone(),
        member: member.clone(),
        ingress_tls_port: None,
        raft_dir: None,
        encryption_key_file: keys.path(),
    })?;
    Ok(Initialised {
        key_file: keys.path(),
        kubeconfig: dir.kubeconfig(),
        cluster: args.cluster.clone(),
        member,
        disk,
    })
}

/// The swarm's settings as they begin.
fn settings(domain: &str) -> (Key, Value) {
    let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let body = objects::fresh(&key, json!({}), json!({ "data": { "domain": domain } }));
    (key, body)
}

/// As the API takes it later.
fn check_domain(domain: &str) -> anyhow::Result<()> {
    let (_, body) = settings(domain);
    match validate_stored(Resource::ConfigMap, &body).first() {
        Some(wrong) => bail!("--domain: {}", wrong.detail()),
        None => Ok(()),
    }
}

/// What an attempt that failed half-way left would be another swarm's.
fn clear_raft(dir: &DataDirectory) -> anyhow::Result<()> {
    if dir.raft().exists() {
        std::fs::remove_dir_all(dir.raft())
            .with_context(|| format!("cannot clear {}", dir.raft().display()))?;
    }
    Ok(())
}

/// The name is a SPIFFE trust domain (and part of certificates).
fn check_cluster_name(name: &str) -> anyhow::Result<()> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(good) {
        bail!("--cluster {name:?}: use at most 63 lower-case letters, digits, \"-\" and \".\"");
    }
    Ok(())
}

fn identity_files(dir: &DataDirectory, keys: &Keys) -> anyhow::Result<IdentityFiles> {
    IdentityFiles::create(dir.identity(), keys.clone())
        .with_context(|| format!("cannot create {}", dir.identity().display()))
}

/// What `join` made.
pub struct Joined {
    pub id: u64,
    /// Where the keys of the disk are.
    pub key_file: Option<PathBuf>,
}

/// Admits this machine as another controller.
pub async fn join(args: &JoinArgs) -> anyhow::Result<Joined> {
    let dir = DataDirectory::create(&args.data.data_dir)?;
    clear_raft(&dir)?;
    let member = args.addresses.member();
    let keys = args.disk.keys(&args.data.data_dir)?;
    let identity = identity_files(&dir, &keys)?;
    let key = own_key(&identity)?;
    let response = enrol(&args.controllers, &args.token, &key, &member).await?;
    let Some(admission) = response.admission else {
        bail!("the controller answered without admitting this one: is it of another version?");
    };
    let ca = CaCertificate::from_der(&response.ca)?;
    if ca.fingerprint() != args.token.ca {
        bail!("the controller answered with another CA than the token pins: refusing it");
    }
    let authority = CertificateAuthority::load(&ca.to_pem(), &admission.ca_key)?;
    // Checks that they belong together; `run` issues its own anew.
    Credentials::new(key, response.certificate.into(), ca)?;
    identity.save_authority(&authority)?;
    dir.save(&SelfRecord {
        raft_id: admission.raft_id,
        cluster: response.cluster,
        member,
        ingress_tls_port: None,
        raft_dir: None,
        encryption_key_file: keys.path(),
    })?;
    Ok(Joined {
        id: admission.raft_id,
        key_file: keys.path(),
    })
}

/// The key of an attempt before, or a new one. Kept before it is used: whoever asks again with it is
/// known, gets the same answer, and uses up no token.
fn own_key(identity: &IdentityFiles) -> anyhow::Result<DeviceKey> {
    match identity.load_device_key() {
        Ok(key) => Ok(key),
        Err(IdentityError::Store(missing)) if missing.is_missing() => {
            let key = DeviceKey::generate();
            identity.save_device_key(&key)?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks one controller after the other. One that took the request, or refuses it, is the last; one
/// that says it can't now, was it for want of a leader, is not.
async fn enrol(
    controllers: &[String],
    token: &JoinToken,
    key: &DeviceKey,
    member: &Member,
) -> anyhow::Result<EnrolResponse> {
    let mut last = None;
    for controller in controllers {
        match connect(controller, token).await {
            Ok(link) => {
                let request = EnrolRequest {
                    secret: token.secret.to_string(),
                    csr: key.csr()?,
                    role: Some(enrol_request::Role::Controller(ControllerRole {
                        endpoint: Some(Endpoint {
                            raft_id: 0,
                            link: member.link.clone(),
                            api: member.api.clone(),
                            ingress: member.ingress.clone(),
                            ingress_tls: member.ingress_tls.clone().unwrap_or_default(),
                        }),
                        level: level::OWN,
                    })),
                };
                let mut client = EnrolmentClient::new(grpc::channel(link.clone()));
                let answered = tokio::time::timeout(ENROL_TIMEOUT, client.enrol(request)).await;
                link.close("enrolled");
                match answered {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                        let why = status.message();
                        last = Some(anyhow::anyhow!("{controller} cannot answer now: {why}"));
                    }
                    Ok(Err(status)) => bail!("{controller} refused: {}", status.message()),
                    Err(_) => bail!("{controller} did not answer within {ENROL_TIMEOUT:?}"),
                }
            }
            Err(error) => last = Some(error.context(format!("cannot reach {controller}"))),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no controller was named")))
}

async fn connect(controller: &str, token: &JoinToken) -> anyhow::Result<Link> {
    let config = tls::enrol_client_config(token.ca);
    Ok(dial(controller, config, &LinkSettings::default()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_one_that_clients_ask_for() {
        for (domain, is_good) in [
            ("localhost", true),
            ("swarm.example", true),
            ("", false),
            ("Swarm.example", false),
            ("swarm.example.", false),
            ("*.example", false),
        ] {
            let refused = check_domain(domain).err().map(|error| error.to_string());
            assert_eq!(refused.is_none(), is_good, "{domain}: {refused:?}");
            assert!(refused.is_none_or(|why| why.starts_with("--domain: ")));
        }
    }
}
