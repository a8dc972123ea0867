//! The same over real links: QUIC on loopback, certificates and all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use hive_controller::peers::{Lane, PeerUnreachable, Peers};
use hive_controller::state::{Command, Member};
use hive_controller::store::seal::keys::Keys;
use hive_controller::store::{Replica, ReplicaOptions};
use hive_identity::{
    CertificateAuthority, Credentials, DEFAULT_LIFETIME, DeviceKey, LiveCredentials, Subject, tls,
};
use hive_proto::grpc::{self, GrpcStream};
use hive_proto::link::{LinkSettings, Listener};
use hive_proto::v1::peers_server::PeersServer;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::swarm::{Service, TIMING, soon, write};

fn credentials(authority: &CertificateAuthority, raft_id: u64) -> LiveCredentials {
    let key = DeviceKey::generate();
    let issued = authority
        .issue(
            &key.csr().unwrap(),
            &Subject::Controller { raft_id },
            &[],
            SystemTime::now(),
            DEFAULT_LIFETIME,
        )
        .unwrap();
    let ca = authority.certificate().clone();
    LiveCredentials::new(Credentials::new(key, issued.der, ca).unwrap())
}

/// Dead links are noticed soon, as between controllers.
fn settings() -> LinkSettings {
    LinkSettings {
        keep_alive: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(10),
        ..LinkSettings::default()
    }
}

struct Controller {
    replica: Replica,
    peers: Peers,
    member: Member,
    serving: CancellationToken,
    _dir: TempDir,
}

async fn controller(authority: &CertificateAuthority, id: u64) -> Controller {
    let live = credentials(authority, id);
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = Listener::bind(address, tls::link_server_config(&live), settings())
        .await
        .unwrap();
    let member = Member {
        link: listener.local_addr().to_string(),
        ..Member::default()
    };
    let peers = Peers::new(live, settings(), id);
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        keys: Keys::default(),
        dir: dir.path().join("raft"),
        id,
        timing: Some(TIMING),
    };
    let replica = Replica::start(options, peers.clone()).await.unwrap();
    let (streams, incoming) = mpsc::channel(16);
    let serving = CancellationToken::new();
    let routes = Routes::new(PeersServer::new(Service::from(replica.clone())));
    tokio::spawn(grpc::serve(routes, incoming, serving.clone()));
    let accepting = async move {
        while let Some(link) = listener.accept().await {
            let streams = streams.clone();
            tokio::spawn(async move {
                while let Ok((_, stream)) = link.accept().await {
                    if streams.send(GrpcStream::new(stream)).await.is_err() {
                        return;
                    }
                }
            });
        }
    };
    tokio::spawn(serving.clone().run_until_cancelled_owned(accepting));
    Controller {
        replica,
        peers,
        member,
        serving,
        _dir: dir,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_controllers_agree_over_quic() {
    let authority = CertificateAuthority::create("test").unwrap();
    let mut controllers = BTreeMap::new();
    for id in 1..=3 {
        controllers.insert(id, controller(&authority, id).await);
    }
    let first = &controllers[&1];
    first.replica.bootstrap(first.member.clone()).await.unwrap();
    for id in [2, 3] {
        let member = &controllers[&id].member;
        let admit = Command::AdmitController {
            member: member.clone(),
        };
        first.replica.propose(admit).await.unwrap();
        let added = first.replica.add_member(id, member);
        soon("a member to catch up", added).await.unwrap();
    }
    for (id, controller) in &controllers {
        write(&controller.replica, &format!("by-{id}")).await;
    }

    // Whoever leads now goes; the others carry on.
    let mut leadership = first.replica.leadership();
    let leads = leadership.wait_for(|now| now.leader.is_some());
    let gone = soon("a leader", leads).await.unwrap().leader.unwrap();
    let gone = controllers.remove(&gone).unwrap();
    gone.replica.shutdown().await;
    gone.serving.cancel();
    let survivor = controllers.values().next().unwrap();
    write(&survivor.replica, "after").await;
}

/// A message for one controller never reaches another, whatever an address says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_controller_at_the_address_is_not_spoken_to() {
    let authority = CertificateAuthority::create("test").unwrap();
    let caller = controller(&authority, 1).await;
    let two = controller(&authority, 2).await;
    caller.peers.set_members([
        (2, two.member.clone()),
        // Where controller 2 listens now.
        (3, two.member.clone()),
    ]);
    soon("a link to controller 2", async {
        while caller.peers.client(2, Lane::Requests).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(
        caller.peers.client(3, Lane::Requests),
        Err(PeerUnreachable::NoLink { id: 3, .. })
    ));
    assert!(matches!(
        caller.peers.client(4, Lane::Requests),
        Err(PeerUnreachable::Unknown { id: 4 })
    ));
    assert!(caller.peers.client(1, Lane::Requests).is_err(), "itself");
}
