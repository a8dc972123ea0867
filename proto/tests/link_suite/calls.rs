//! gRPC in the streams of a link.

use hive_proto::grpc::{self, GrpcStream, LinkInfo, MAX_MESSAGE_BYTES};
use hive_proto::link::{Link, Purpose, Transport};
use hive_proto::v1::enrolment_client::EnrolmentClient;
use hive_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use hive_proto::v1::{EnrolRequest, EnrolResponse};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use crate::parties::{Pair, within};

/// Answers with who is asking, and as many bytes as were sent.
struct Mirror;

#[tonic::async_trait]
impl Enrolment for Mirror {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let info = request.extensions().get::<LinkInfo>().unwrap();
        let peer = info.peer.as_ref().unwrap();
        Ok(Response::new(EnrolResponse {
            cluster: format!("{} over {}", peer.subject, info.transport),
            certificate: request.get_ref().csr.clone(),
            ..Default::default()
        }))
    }
}

/// Serves until the link ends or `cancel`.
async fn serve(link: Link, cancel: CancellationToken) {
    let (streams, incoming) = mpsc::channel(4);
    let routes = Routes::new(EnrolmentServer::new(Mirror));
    let serving = tokio::spawn(grpc::serve(routes, incoming, cancel));
    while let Ok((purpose, stream)) = link.accept().await {
        assert_eq!(purpose, Purpose::Grpc);
        if streams.send(GrpcStream::new(stream)).await.is_err() {
            break;
        }
    }
    drop(streams);
    serving.await.unwrap().unwrap();
}

fn request(bytes: usize) -> EnrolRequest {
    EnrolRequest {
        csr: vec![7; bytes],
        ..Default::default()
    }
}

#[tokio::test]
async fn calls_know_who_makes_them() {
    for transport in [Transport::Quic, Transport::Tcp, Transport::Memory] {
        let pair = Pair::over(transport).await;
        let serving = tokio::spawn(serve(pair.controller.clone(), CancellationToken::new()));
        within(async {
            let mut client = EnrolmentClient::new(grpc::channel(pair.node.clone()));
            let answer = client.enrol(request(3_000_000)).await.unwrap().into_inner();
            assert_eq!(answer.cluster, format!("node pi over {transport}"));
            assert_eq!(answer.certificate.len(), 3_000_000);

            let refused = client.enrol(request(MAX_MESSAGE_BYTES + 1)).await;
            assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
            client.enrol(request(1)).await.unwrap();

            // A channel of its own is a stream of its own.
            let mut other = EnrolmentClient::new(grpc::channel(pair.node.clone()));
            other.enrol(request(1)).await.unwrap();
            assert_eq!(pair.node.open_streams(), 2);

            pair.node.close("done");
            let late = client.enrol(request(1)).await.unwrap_err();
            // tonic says "cancelled" of a call that its connection took along.
            let lost = [Code::Unavailable, Code::Cancelled];
            assert!(lost.contains(&late.code()), "{late:?}");
            serving.await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_but_not_the_link() {
    let pair = Pair::over(Transport::Quic).await;
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve(pair.controller.clone(), cancel.clone()));
    within(async {
        let mut client = EnrolmentClient::new(grpc::channel(pair.node.clone()));
        client.enrol(request(1)).await.unwrap();
        cancel.cancel();
        pair.node.idle().await;
        assert!(pair.node.end().is_none());
        drop(client);
        pair.node.close("done");
        serving.await.unwrap();
    })
    .await;
}
