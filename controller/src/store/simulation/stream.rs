//! A stream of calls between two simulated machines: what is sent arrives in the order in which it
//! was sent, however late, and what is lost breaks all that follows.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hive_proto::v1::peers_server::Peers;
use hive_proto::v1::{RaftMessage, ReadIndexRequest};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Status};

use super::network::Fabric;
use super::service::Answering;
use super::world;
use crate::peers::{Ask, InOrder, index_bytes};

type Answer = Result<Bytes, Status>;

struct Asked {
    ask: Ask,
    body: Bytes,
    done: oneshot::Sender<Answer>,
}

/// The caller's end. It lasts until a message is lost or the machine at the other end is down.
pub struct SimulatedStream {
    sent: mpsc::UnboundedSender<Asked>,
}

impl SimulatedStream {
    pub fn open(fabric: Fabric, from: u64, to: u64) -> Arc<dyn InOrder> {
        let (sent, on_its_way) = mpsc::unbounded_channel();
        world::spawn_on(world::OUTSIDE, carry(fabric, from, to, on_its_way));
        Arc::new(Self { sent })
    }
}

impl InOrder for SimulatedStream {
    fn call(&self, ask: Ask, body: Bytes) -> BoxFuture<'static, Answer> {
        world::record(&body);
        let (done, answer) = oneshot::channel();
        // When it is broken, nobody answers.
        drop(self.sent.send(Asked { ask, body, done }));
        async move {
            answer
                .await
                .unwrap_or_else(|_| Err(Status::unavailable("the simulated stream broke")))
        }
        .boxed()
    }
}

/// Takes one message after the other to the machine at the other end.
async fn carry(fabric: Fabric, from: u64, to: u64, mut sent: mpsc::UnboundedReceiver<Asked>) {
    let Some(answering) = fabric.answering(to) else {
        return;
    };
    let (arrive, arrived) = mpsc::unbounded_channel();
    let back = fabric.clone();
    world::spawn_on(to, converse(back, from, to, answering, arrived));
    while let Some(asked) = sent.recv().await {
        if fabric.pass(from, to).await.is_err() || arrive.send(asked).is_err() {
            return;
        }
    }
}

/// Begins what arrives in the order in which it arrives, and answers as it is done.
async fn converse(
    fabric: Fabric,
    from: u64,
    to: u64,
    answering: Answering,
    mut arrived: mpsc::UnboundedReceiver<Asked>,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            asked = arrived.recv() => {
                let Some(Asked { ask, body, done }) = asked else { break };
                let (answering, fabric) = (answering.clone(), fabric.clone());
                under_way.push(async move {
                    let answer = answer(answering, ask, body).await;
                    world::spawn_on(world::OUTSIDE, async move {
                        if fabric.pass(to, from).await.is_ok() {
                            // The caller may have given up.
                            let _ = done.send(answer);
                        }
                    });
                });
            }
        }
    }
    while under_way.next().await.is_some() {}
}

async fn answer(answering: Answering, ask: Ask, body: Bytes) -> Answer {
    let message = Request::new(RaftMessage { body });
    let reply = match ask {
        Ask::Append => answering.append(message).await?,
        Ask::Propose => answering.propose(message).await?,
        Ask::ReadIndex => {
            let reply = answering.read_index(Request::new(ReadIndexRequest {}));
            return Ok(index_bytes(reply.await?.into_inner().index));
        }
    };
    Ok(reply.into_inner().body)
}
