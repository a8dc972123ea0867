//! Connections to what nodes reach: a stream of the link to a node, behind whose other end a target has taken a
//! connection.
//!
//! Every use of a tunnel begins here: connections, requests, and checks. What is not a target's answer is an error
//! that says who failed.

use std::time::Duration;

use hive_manifests::tunnel::TunnelTarget;
use hive_proto::flow::{self, FlowReader, FlowWriter};
use hive_proto::frame::{self, FrameError};
use hive_proto::link::{Datagrams, Link, LinkError, Purpose, Stream};
use hive_proto::tunnel as reasons;
use hive_proto::v1::{TunnelOpen, TunnelOpened};

use crate::gateway::{Links, bounds};
use crate::state::Key;

/// For a stream to be opened and the answer to come back, besides the time that the agent has to connect: links
/// over satellites and loaded phones answer in it.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// Streams of a link that tunnels leave to functions and logs, which they may not keep from working. Nodes let in 4,096
/// over QUIC and 512 over TCP; those of a release before 256.
const LEFT_TO_OTHERS: usize = 64;

/// Bytes of the answer: a reason, and a sentence for people.
const MAX_ANSWER_BYTES: usize = 4 << 10;

/// Opens connections over the links of nodes. A clone is the same.
#[derive(Clone, Default)]
pub struct Opener {
    links: Links,
}

/// Why there is no connection to a target. Another target may have one.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("node {0:?} has no link to this controller: it is off, cut off, or just starting")]
    NotLinked(String),
    #[error("node {0:?} carries as many streams as one link may: try again soon")]
    Busy(String),
    #[error("the agent of node {0:?} does not know such tunnels: upgrade it")]
    AgentTooOld(String),
    /// In the agent's words.
    #[error("{message}")]
    Refused { reason: String, message: String },
    #[error("the link to node {node:?} failed")]
    Link {
        node: String,
        #[source]
        source: LinkError,
    },
    #[error("node {node:?} answered what is no answer")]
    Nonsense {
        node: String,
        #[source]
        source: FrameError,
    },
    #[error("node {node:?} did not answer within {within:?}")]
    Timeout { node: String, within: Duration },
}

impl OpenError {
    /// In one CamelCase word.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotLinked(_) => "NodeNotLinked",
            Self::Busy(_) => reasons::BUSY,
            Self::AgentTooOld(_) => "AgentTooOld",
            Self::Refused { reason, .. } => reason,
            Self::Link { .. } => "LinkFailed",
            Self::Nonsense { .. } => "BadAnswer",
            Self::Timeout { .. } => "NodeSilent",
        }
    }
}

impl Opener {
    pub fn new(links: Links) -> Self {
        Self { links }
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    /// A connection of a tunnel to a target, which has `within` to take it. What is written to the stream reaches
    /// the target, and its bytes come back; dropping the stream cuts the connection.
    pub async fn open(
        &self,
        tunnel: &Key,
        target: &TunnelTarget,
        within: Duration,
    ) -> Result<Stream, OpenError> {
        let link = self.link(&target.node)?;
        let question = Question {
            purpose: Purpose::Tunnel,
            tunnel,
            target,
            within,
            flow: None,
        };
        question.ask(&link).await
    }

    /// A flow of datagrams to a target, of which nothing is proven but that its node sends there.
    pub async fn open_flow(
        &self,
        tunnel: &Key,
        target: &TunnelTarget,
        within: Duration,
    ) -> Result<(FlowReader, FlowWriter), OpenError> {
        let link = self.link(&target.node)?;
        let datagrams = link.has_datagrams().then(|| link.begin_flow());
        let question = Question {
            purpose: Purpose::TunnelUdp,
            tunnel,
            target,
            within,
            flow: datagrams.as_ref().map(Datagrams::id),
        };
        let stream = question.ask(&link).await?;
        Ok(flow::split(stream, datagrams))
    }

    /// The link to a node, if it has room for one more stream of a tunnel.
    fn link(&self, node: &str) -> Result<Link, OpenError> {
        let link = self.links.of(node);
        let link = link.ok_or_else(|| OpenError::NotLinked(node.to_owned()))?;
        match link.open_streams() + LEFT_TO_OTHERS < link.most_streams() {
            true => Ok(link),
            false => Err(OpenError::Busy(node.to_owned())),
        }
    }
}

/// What a node is asked for.
struct Question<'a> {
    purpose: Purpose,
    tunnel: &'a Key,
    target: &'a TunnelTarget,
    within: Duration,
    flow: Option<u32>,
}

impl Question<'_> {
    async fn ask(&self, link: &Link) -> Result<Stream, OpenError> {
        let within = self.within + LINK_PATIENCE;
        let answered = tokio::time::timeout(within, ask(link, self)).await;
        answered.unwrap_or_else(|_| {
            Err(OpenError::Timeout {
                node: self.target.node.clone(),
                within,
            })
        })
    }
}

async fn ask(link: &Link, question: &Question<'_>) -> Result<Stream, OpenError> {
    let Question {
        purpose,
        tunnel,
        target,
        within,
        flow,
    } = *question;
    let failed = |source| OpenError::Link {
        node: target.node.clone(),
        source,
    };
    let mut stream = link.open(purpose).await.map_err(failed)?;
    let open = TunnelOpen {
        namespace: tunnel.namespace.clone(),
        tunnel: tunnel.name.clone(),
        host: target.host.clone(),
        port: target.port.into(),
        connect_ms: within.as_millis().try_into().unwrap_or(u32::MAX),
        flow,
    };
    let answer = async {
        frame::write(&mut stream, &open).await?;
        frame::read::<TunnelOpened>(&mut stream, MAX_ANSWER_BYTES).await
    };
    match answer.await {
        Ok(Some(opened)) if opened.reason.is_empty() => Ok(stream),
        Ok(Some(refused)) => {
            let TunnelOpened { reason, message } = bounds::refusal(refused);
            Err(OpenError::Refused { reason, message })
        }
        // An agent drops a stream for what it does not know; all streams end with their link.
        Ok(None) | Err(FrameError::Io(_)) => Err(match link.end() {
            Some(end) => failed(end),
            None => OpenError::AgentTooOld(target.node.clone()),
        }),
        Err(source) => Err(OpenError::Nonsense {
            node: target.node.clone(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::tunnels::fake_agent::{asked, join, join_by_hand};

    const WITHIN: Duration = Duration::from_secs(7);

    fn tunnel() -> Key {
        Key::new(Resource::Tunnel, "default", "photos")
    }

    fn target() -> TunnelTarget {
        let target = json!({ "node": "pi", "host": "192.168.1.20", "port": 3000 });
        serde_json::from_value(target).unwrap()
    }

    /// What becomes of an open while the agent does something with the stream.
    async fn opened(
        agent: impl AsyncFnOnce(&Link, Stream, TunnelOpen),
    ) -> Result<Stream, OpenError> {
        let links = Links::default();
        let link = join_by_hand(&links, "pi");
        let opener = Opener::new(links);
        let (tunnel, target) = (tunnel(), target());
        let answering = async {
            let (stream, open) = asked(&link).await;
            agent(&link, stream, open).await;
        };
        tokio::join!(opener.open(&tunnel, &target, WITHIN), answering).0
    }

    async fn answer(mut stream: Stream, reason: &str, message: &str) {
        let opened = TunnelOpened {
            reason: reason.into(),
            message: message.into(),
        };
        frame::write(&mut stream, &opened).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_node_is_told_whom_to_connect_to_and_bytes_follow_its_answer() {
        let mut stream = opened(async |_, mut stream, open| {
            let expected = TunnelOpen {
                namespace: "default".into(),
                tunnel: "photos".into(),
                host: "192.168.1.20".into(),
                port: 3000,
                connect_ms: 7000,
                flow: None,
            };
            assert_eq!(open, expected);
            frame::write(&mut stream, &TunnelOpened::default())
                .await
                .unwrap();
            stream.write_all(b"from the target").await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "from the target");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_words_of_the_agent() {
        for (reason, message, told) in [
            ("Refused", "nobody listens", "Refused"),
            ("ByLaterAgents", "something else", "ByLaterAgents"),
            ("no word\"}", "evil", "Unspecified"),
        ] {
            let refused = opened(async |_, stream, _| answer(stream, reason, message).await).await;
            let error = refused.unwrap_err();
            assert!(matches!(&error, OpenError::Refused { .. }), "{error:?}");
            assert_eq!((error.reason(), &*error.to_string()), (told, message));
        }
        let long = "x".repeat(3000);
        let refused = opened(async |_, stream, _| answer(stream, "Refused", &long).await).await;
        assert!(refused.unwrap_err().to_string().len() < 2000);
    }

    #[tokio::test]
    async fn who_does_not_answer_as_agents_do_is_told_apart() {
        let dropped = opened(async |_, stream, _| drop(stream)).await;
        assert_eq!(dropped.unwrap_err().reason(), "AgentTooOld");
        let ended = opened(async |_, mut stream, _| {
            stream.shutdown().await.unwrap();
        });
        assert_eq!(ended.await.unwrap_err().reason(), "AgentTooOld");
        let unlinked = opened(async |link, _, _| link.close("stopping")).await;
        assert_eq!(unlinked.unwrap_err().reason(), "LinkFailed");
        let endless = "x".repeat(MAX_ANSWER_BYTES);
        let nonsense = opened(async |_, stream, _| answer(stream, "", &endless).await).await;
        assert_eq!(nonsense.unwrap_err().reason(), "BadAnswer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_says_nothing_is_given_up() {
        let began = tokio::time::Instant::now();
        let silent = opened(async |_, mut stream, _| {
            // Until the controller lets go.
            stream.read_u8().await.unwrap_err();
        });
        assert_eq!(silent.await.unwrap_err().reason(), "NodeSilent");
        assert_eq!(began.elapsed().as_secs(), 12);
    }

    #[tokio::test]
    async fn a_node_without_a_link_is_not_waited_for() {
        let opener = Opener::default();
        let error = opener.open(&tunnel(), &target(), WITHIN).await.unwrap_err();
        assert_eq!(error.reason(), "NodeNotLinked");
    }

    #[tokio::test]
    async fn tunnels_leave_streams_to_others() {
        let links = Links::default();
        let link = join(&links, "pi");
        let opener = Opener::new(links);
        let mut others = Vec::new();
        for _ in 0..link.most_streams() - LEFT_TO_OTHERS {
            others.push(link.open(Purpose::Tunnel).await.unwrap());
        }
        let nobody = json!({ "node": "pi", "host": "127.0.0.1", "port": 1 });
        let nobody = serde_json::from_value(nobody).unwrap();
        let error = opener.open(&tunnel(), &nobody, WITHIN).await.unwrap_err();
        assert!(matches!(error, OpenError::Busy(_)), "{error:?}");
        others.pop();
        let error = opener.open(&tunnel(), &nobody, WITHIN).await.unwrap_err();
        assert_eq!(error.reason(), "Refused");
    }
}
