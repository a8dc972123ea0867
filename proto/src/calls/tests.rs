#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use prost::bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::link::memory;

const DEADLINE: Duration = Duration::from_secs(120);

/// Says what it was asked, `kind` turns of the scheduler later; or refuses it.
async fn echo(kind: u8, content: Bytes) -> Result<Bytes, Status> {
    for _ in 0..kind {
        tokio::task::yield_now().await;
    }
    match &content[..] {
        b"no" => Err(Status::failed_precondition("no, not here")),
        _ => Ok(content),
    }
}

async fn pair() -> (Calls, Stream, Link) {
    let (here, there) = memory::pair(None, None);
    let calls = Calls::over(here);
    let (purpose, stream) = there.accept().await.unwrap();
    assert_eq!(purpose, Purpose::Calls);
    (calls, stream, there)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn each_call_gets_its_own_answer(calls in prop::collection::vec((0u8..4, 0usize..40_000), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (client, stream, _link) = pair().await;
            let served = tokio::spawn(serve(stream, CancellationToken::new(), echo));
            let answers: Vec<_> = calls
                .iter()
                .enumerate()
                .map(|(n, (kind, length))| {
                    let content = Bytes::from(vec![n as u8; *length]);
                    let answer = client.call(*kind, content.clone());
                    async move { assert_eq!(answer.await.unwrap(), content) }
                })
                .collect();
            tokio::time::timeout(DEADLINE, futures::future::join_all(answers)).await.unwrap();
            drop(client);
            // Ends with the last handle, for whichever reason.
            let _ = tokio::time::timeout(DEADLINE, served).await.unwrap();
        });
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
        let mut incoming = Incoming { bytes: BytesMut::from(&bytes[..]) };
        while let Ok(Some(_)) = incoming.next() {}
    }
}

#[tokio::test]
async fn calls_begin_in_order_and_refusals_keep_their_code() {
    let (client, stream, _link) = pair().await;
    let begun = Arc::new(Mutex::new(Vec::new()));
    let seen = begun.clone();
    let served = serve(stream, CancellationToken::new(), move |kind, content| {
        let seen = seen.clone();
        async move {
            seen.lock().unwrap().push(kind);
            echo(kind % 3, content).await
        }
    });
    tokio::spawn(served);
    let answers: Vec<_> = (0..200)
        .map(|kind| client.call(kind, Bytes::new()))
        .collect();
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!(*begun.lock().unwrap(), (0..200).collect::<Vec<u8>>());
    let refused = client.call(0, Bytes::from_static(b"no")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "no, not here");
}

/// What answers hands its calls on through a queue of tokio's, as Raft does: a task that has had its
/// turn must not let them overtake each other on their way there.
#[tokio::test]
async fn calls_reach_a_queue_in_order() {
    for capacity in [1, 7, 64, 2_048] {
        let (client, stream, _link) = pair().await;
        let (queue, mut queued) = tokio::sync::mpsc::channel(capacity);
        let served = serve(stream, CancellationToken::new(), move |_, content| {
            let queue = queue.clone();
            async move {
                queue.send(content.clone()).await.unwrap();
                Ok(content)
            }
        });
        tokio::spawn(served);
        let calls = 0..MAX_WAITING as u32;
        let numbered = |n: u32| Bytes::copy_from_slice(&n.to_le_bytes());
        let answers: Vec<_> = calls.clone().map(|n| client.call(0, numbered(n))).collect();
        let answered = tokio::spawn(futures::future::join_all(answers));
        for n in calls {
            let next = tokio::time::timeout(DEADLINE, queued.recv()).await.unwrap();
            assert_eq!(next.unwrap(), numbered(n), "through a queue of {capacity}");
        }
        answered.await.unwrap();
    }
}

#[tokio::test]
async fn whoever_does_not_know_such_streams_is_told_apart_from_one_that_stopped() {
    let (client, stream, _link) = pair().await;
    drop(stream);
    let error = client.call(0, Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(client.has_ended() && client.was_refused());
    let error = client.call(0, Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);

    let (client, stream, _link) = pair().await;
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(stream, stop.clone(), echo));
    client.call(0, Bytes::new()).await.unwrap();
    stop.cancel();
    served.await.unwrap().unwrap();
    let error = client.call(0, Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(client.has_ended() && !client.was_refused());
}

#[tokio::test]
async fn what_waits_to_be_sent_is_bounded() {
    let (client, _stream, _link) = pair().await;
    let large = Bytes::from(vec![0; MAX_MESSAGE_BYTES]);
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() <= 8, "nobody reads what was sent");
        let mut call = Box::pin(client.call(0, large.clone()));
        match futures::poll!(call.as_mut()) {
            Poll::Ready(answer) => break answer.unwrap_err(),
            Poll::Pending => waiting.push(call),
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(waiting.len() >= 3);
}

#[tokio::test]
async fn who_gives_up_leaves_nothing_behind() {
    let (client, stream, _link) = pair().await;
    for _ in 0..2 * MAX_WAITING {
        let mut call = Box::pin(client.call(0, Bytes::new()));
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    assert_eq!(lock(&client.handle.0).waiting.len(), 0);
    drop(stream);
}

#[tokio::test]
async fn a_frame_too_long_ends_the_stream() {
    let (here, there) = memory::pair(None, None);
    let mut stream = here.open(Purpose::Calls).await.unwrap();
    let (_, accepted) = there.accept().await.unwrap();
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let error = serve(accepted, CancellationToken::new(), echo)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
