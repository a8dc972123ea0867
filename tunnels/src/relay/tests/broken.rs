//! One side breaks: the other must not take it for the end.

use std::pin::pin;

use tokio::net::TcpListener;

use super::*;

/// A connection that breaks, and remembers whether it was told of an end.
#[derive(Default)]
struct Breaking {
    /// Whoever reads is told.
    when_read: bool,
    /// Whoever writes was told. As with sockets, it is an end to whoever reads after that.
    was_written: bool,
    was_shut_down: bool,
}

impl AsyncRead for Breaking {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match (self.when_read, self.was_written) {
            (true, _) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            (false, true) => Poll::Ready(Ok(())),
            (false, false) => Poll::Pending,
        }
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.was_written = true;
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.was_shut_down = true;
        Poll::Ready(Ok(()))
    }
}

/// What becomes of a relay of which one side breaks when it is read, or when it is written to.
async fn broken(side: Side, when_read: bool) -> RelayError {
    let (limits, counts) = (RelayLimits::default(), Counts::default());
    let mut breaking = Breaking {
        when_read,
        ..Breaking::default()
    };
    let (mut far, mut near) = duplex(ROOM);
    if !when_read {
        far.write_all(b"x").await.unwrap();
    }
    let ended = match side {
        Side::Client => relay(&mut breaking, &mut near, &limits, &counts).await,
        Side::Target => relay(&mut near, &mut breaking, &limits, &counts).await,
    };
    let mut byte = [0];
    let mut reading = pin!(far.read(&mut byte));
    let told = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_ready()));
    assert!(!told.await, "{side}: the other side was told of an end");
    assert!(!breaking.was_shut_down, "{side} was told of an end");
    ended.unwrap_err()
}

#[tokio::test]
async fn what_breaks_is_no_end() {
    for side in [Side::Client, Side::Target] {
        let error = broken(side, true).await;
        assert!(matches!(error, RelayError::Read(of, _) if of == side));
        let error = broken(side, false).await;
        assert!(matches!(error, RelayError::Write(of, _) if of == side));
    }
}

#[tokio::test]
async fn a_target_that_breaks_off_breaks_its_client_off() {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let dialled = back.local_addr().unwrap();
    let (client, accepted, near_target, target) = tokio::join!(
        TcpStream::connect(address),
        front.accept(),
        TcpStream::connect(dialled),
        back.accept(),
    );
    let (mut client, mut target) = (client.unwrap(), target.unwrap().0);
    let (mut accepted, mut near_target) = (accepted.unwrap().0, near_target.unwrap());
    let relaying = tokio::spawn(async move {
        let (limits, counts) = (RelayLimits::default(), Counts::default());
        let ended = relay(&mut accepted, &mut near_target, &limits, &counts).await;
        abort(accepted);
        ended
    });
    target.write_all(b"half of what").await.unwrap();
    let mut half = [0; 12];
    client.read_exact(&mut half).await.unwrap();
    abort(target);
    let error = client.read(&mut half).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let ended = relaying.await.unwrap();
    assert!(
        matches!(ended, Err(RelayError::Read(Side::Target, _))),
        "{ended:?}"
    );
}

/// Says something, and takes nothing: as a server that refuses a request by its head.
struct Refusing(Option<&'static [u8]>);

impl AsyncRead for Refusing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(said) = self.0.take() else {
            return Poll::Pending;
        };
        buf.put_slice(said);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Refusing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_target_said_before_it_broke_gets_through() {
    let (limits, counts) = (RelayLimits::default(), Counts::default());
    let (mut client, mut near) = duplex(ROOM);
    client.write_all(b"a request").await.unwrap();
    let mut target = Refusing(Some(b"too large"));
    let ended = relay(&mut near, &mut target, &limits, &counts).await;
    assert!(
        matches!(ended, Err(RelayError::Write(Side::Target, _))),
        "{ended:?}"
    );
    drop(near);
    assert_eq!(rest(&mut client).await, b"too large");
}
