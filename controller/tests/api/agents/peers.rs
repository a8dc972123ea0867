//! What controllers ask of each other, and no node may.

use hive_controller::artifacts::Digest;
use hive_controller::artifacts::pieces::to_put;
use hive_controller::state::level;
use hive_controller::tunnels;
use hive_proto::v1::peers_client::PeersClient;
use hive_proto::v1::{
    NodeUsageRequest, PutArtifactChunk, ReadIndexRequest, TunnelDoorReply, TunnelDoorRequest,
};
use prost::Message;
use tokio::net::TcpListener;
use tonic::Code;

use super::*;

#[tokio::test]
async fn controllers_put_artifacts_on_those_of_either_release() {
    const NEWEST: u32 = level::COMPRESSED_PUTS;
    let swarm = Swarm::start().await;
    let own = credentials(&swarm.authority, &Subject::Controller { raft_id: 1 });
    let link = swarm.link(own).await;
    let put = async |code: &[u8], pieces: Vec<PutArtifactChunk>| {
        let header = PutArtifactChunk {
            sha256: Digest::of(code).as_bytes().to_vec(),
            size: code.len() as u64,
            ..PutArtifactChunk::default()
        };
        let mut client = PeersClient::new(grpc::channel(link.clone()));
        let stream = futures::stream::iter([vec![header], pieces].concat());
        client.put_artifact(stream).await
    };
    for (level, fill) in [(NEWEST - 1, b'a'), (NEWEST, b'b')] {
        let code = vec![fill; 200_000];
        let data: Vec<_> = code.chunks(64 << 10).map(<[u8]>::to_vec).collect();
        let pieces = data.into_iter().map(|data| to_put(data.into(), level));
        let pieces = futures::future::join_all(pieces).await;
        // Who knows nothing of pieces reads all there is.
        let plain = pieces.iter().map(|piece| piece.data.len()).sum::<usize>();
        let expected = if level < NEWEST { code.len() } else { 0 };
        assert_eq!(plain, expected);
        let travels = pieces.iter().map(Message::encoded_len).sum::<usize>();
        assert_eq!(travels < code.len() / 2, level == NEWEST);
        put(&code, pieces).await.unwrap();
        assert_eq!(swarm.files.size(&Digest::of(&code)), Some(200_000));
    }
    // One that lies about its size is not taken, nor unfolded.
    let code = vec![b'c'; 1000];
    for said in [999, 1001, 2 << 20] {
        let mut lie = to_put(code.clone().into(), NEWEST).await;
        lie.piece.as_mut().unwrap().plain_size = said;
        let refused = put(&code, vec![lie]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(swarm.files.size(&Digest::of(&code)), None);
    }
}

#[tokio::test]
async fn a_nodes_certificate_opens_nothing_of_the_controllers() {
    let swarm = Swarm::start().await;
    let link = swarm.link(swarm.node("pi").await).await;
    let mut peers = PeersClient::new(grpc::channel(link));
    let index = peers.read_index(ReadIndexRequest::default()).await;
    assert_eq!(index.unwrap_err().code(), Code::PermissionDenied);
    let usage = peers.node_usage(NodeUsageRequest::default()).await;
    assert_eq!(usage.unwrap_err().code(), Code::PermissionDenied);
    let door = peers.tunnel_door(TunnelDoorRequest::default()).await;
    assert_eq!(door.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_controller_tells_another_how_the_port_of_a_tunnel_is() {
    let swarm = Swarm::start().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let targets = json!([{ "node": "pi", "port": 22 }]);
    let spec = json!({ "protocol": "TCP", "port": port, "targets": targets });
    let content = json!({ "spec": spec });
    swarm
        .create(Resource::Tunnel, "default", "ssh", content)
        .await;
    let key = Key::new(Resource::Tunnel, "default", "ssh");
    let uid = {
        let state = swarm.server.replica.state();
        let tunnel = state.get(&key).unwrap().body();
        tunnel["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let other = Subject::Controller { raft_id: 2 };
    let link = swarm.link(credentials(&swarm.authority, &other)).await;
    let mut peers = PeersClient::new(grpc::channel(link));
    let mut asked = async |uid: &str| {
        let request = TunnelDoorRequest {
            namespace: "default".into(),
            name: "ssh".into(),
            uid: uid.to_owned(),
        };
        peers.tunnel_door(request).await.unwrap().into_inner()
    };
    assert_eq!(asked(&uid).await, TunnelDoorReply::default());

    let (served, replica) = (swarm.tunnels.clone(), swarm.server.replica.clone());
    let (at, stop) = (Ipv4Addr::LOCALHOST.into(), swarm.server.stop.clone());
    tokio::spawn(tunnels::serve(served, replica, at, stop));
    let told = async {
        loop {
            let reply = asked(&uid).await;
            if !reply.problem.is_empty() {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    let told = in_time(told).await;
    let problem = &told.problem;
    assert!(problem.contains(&port.to_string()), "{problem}");
    assert_eq!((told.open, told.came_ms), (false, None));
    // Nothing is known here of one that has its name only.
    assert_eq!(asked("another").await, TunnelDoorReply::default());
}
