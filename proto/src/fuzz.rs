//! What a peer sends before and inside streams, damaged in every way.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hive_fuzz::Target;
use prost::Message;

use crate::desired::EncodedAssignment;
use crate::flow::{FlowEnd, Frames};
use crate::v1::{self, LogLine, LogRequest, TunnelOpen, TunnelOpened};
use crate::{desired_hash, frame};

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// What was understood is written and understood as the same. Compared as bytes: a number that is
/// none equals nothing.
fn again<M: Message + Default>(message: &M) {
    let written = message.encode_to_vec();
    let read = M::decode(&written[..]).unwrap();
    assert_eq!(read.encode_to_vec(), written);
}

/// Messages as streams of logs and of tunnels have them: each is read as what is asked for and as what answers.
#[test]
fn frames_are_read_or_refused() {
    let request = LogRequest {
        namespace: "default".to_owned(),
        function: "hello".to_owned(),
        ..Default::default()
    };
    let line = LogLine {
        text: "a line".to_owned(),
        ..Default::default()
    };
    let request = request.encode_length_delimited_to_vec();
    let line = line.encode_length_delimited_to_vec();
    let open = TunnelOpen {
        tunnel: "photos".to_owned(),
        host: "192.168.1.20".to_owned(),
        port: 3000,
        ..Default::default()
    };
    let opened = TunnelOpened {
        reason: crate::tunnel::REFUSED.to_owned(),
        ..Default::default()
    };
    let open = open.encode_length_delimited_to_vec();
    let opened = opened.encode_length_delimited_to_vec();
    async fn all<M: Message + Default>(mut wire: &[u8]) -> Result<(), String> {
        let whole = wire.len();
        while let Some(message) = frame::read::<M>(&mut wire, frame::MAX_FRAME_BYTES)
            .await
            .map_err(|error| error.to_string())?
        {
            assert!(message.encoded_len() <= whole.max(frame::MAX_FRAME_BYTES));
            again(&message);
        }
        Ok(())
    }
    Target::new("frames", |input: &[u8]| {
        block_on(async {
            let request = all::<LogRequest>(input).await;
            let line = all::<LogLine>(input).await;
            let open = all::<TunnelOpen>(input).await;
            let opened = all::<TunnelOpened>(input).await;
            request.or(line).or(open).or(opened)
        })
    })
    .seeds([line.repeat(3), request.repeat(2), open, opened])
    .words(["\u{80}", "\x0a\x02", "\0"])
    .at_most(4 * 1024)
    .hold();
}

/// Datagrams of tunnels as streams carry them.
#[test]
fn frames_of_flows_are_read_or_refused() {
    fn frame(datagram: &[u8]) -> Vec<u8> {
        let length = u16::try_from(datagram.len()).unwrap();
        [&length.to_be_bytes()[..], datagram].concat()
    }
    let refused = TunnelOpened {
        reason: crate::tunnel::REFUSED.to_owned(),
        ..Default::default()
    };
    let refused = [&u16::MAX.to_be_bytes()[..], &refused.encode_to_vec()].concat();
    Target::new("flow", |input: &[u8]| {
        let mut frames = Frames::new(input);
        let (mut read, end) = block_on(async {
            let mut read = Vec::new();
            loop {
                match frames.next().await {
                    Ok(datagram) => read.extend(frame(&datagram)),
                    Err(end) => return (read, end),
                }
            }
        });
        // What was understood is what was sent, up to there.
        assert!(input.starts_with(&read));
        match end {
            FlowEnd::Ended => assert_eq!(read.len(), input.len()),
            FlowEnd::Refused(why) => {
                read.extend(u16::MAX.to_be_bytes());
                assert!(input.starts_with(&read));
                again(&why);
            }
            FlowEnd::Nonsense | FlowEnd::Broken(_) => return Err(end.to_string()),
        }
        Ok(())
    })
    .seeds([frame(b"hello").repeat(2), frame(b""), refused])
    .words(["\0\x05", "\0\0"])
    .at_most(4 * 1024)
    .hold();
}

/// Desired sets and reports: what the gateway and the agent decode of each other.
#[test]
fn session_messages_are_read_or_refused() {
    let assignment = v1::Assignment {
        namespace: "default".to_owned(),
        name: "hello".to_owned(),
        env: [("A".to_owned(), "b".to_owned())].into(),
        limits: Some(v1::Limits::default()),
        artifact: Some(v1::CompiledArtifact::default()),
        ..Default::default()
    };
    let hello = v1::AgentMessage {
        kind: Some(v1::agent_message::Kind::Hello(v1::Hello::default())),
    };
    fn read<M: Message + Default>(input: &[u8]) -> Result<(), String> {
        let message = M::decode(input).map_err(|error| error.to_string())?;
        again(&message);
        Ok(())
    }
    Target::new("session_messages", |input: &[u8]| {
        let decoded = EncodedAssignment::decode(Bytes::copy_from_slice(input));
        if let Ok(decoded) = &decoded {
            // What is understood of it may be less; its name stays that of the bytes.
            assert_eq!(decoded.encoded(), input);
            let one = desired_hash([decoded]);
            assert_eq!(one, desired_hash([decoded]));
        }
        read::<v1::AgentMessage>(input)
            .or_else(|_| read::<v1::ControllerMessage>(input))
            .or_else(|_| read::<v1::EnrolRequest>(input))
            .or_else(|_| read::<v1::PresenceReport>(input))
            .or(decoded.map(|_| ()).map_err(|error| error.to_string()))
    })
    .seeds([assignment.encode_to_vec(), hello.encode_to_vec()])
    .hold();
}

#[test]
fn request_ids_are_kept_or_made() {
    Target::new("request_id", |input: &[u8]| {
        let value = http::HeaderValue::from_bytes(input).map_err(|error| error.to_string())?;
        let mut headers = http::HeaderMap::from_iter([(crate::invoke::REQUEST_ID, value)]);
        let id = crate::invoke::request_id(&mut headers);
        assert!(!id.is_empty() && id.len() <= crate::invoke::LONGEST_REQUEST_ID);
        assert_eq!(headers[crate::invoke::REQUEST_ID], id);
        Ok::<_, String>(())
    })
    .seeds(["abc-1"])
    .hold();
}
