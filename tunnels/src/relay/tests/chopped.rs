//! Whatever pieces bytes are read and written in.

use proptest::prelude::*;

use super::*;

/// Reads and writes in pieces that somebody else chose, and is not ready now and then.
struct Choppy {
    io: DuplexStream,
    pieces: std::vec::IntoIter<usize>,
    all: Vec<usize>,
}

impl Choppy {
    fn new(io: DuplexStream, all: Vec<usize>) -> Self {
        Self {
            io,
            pieces: Vec::new().into_iter(),
            all,
        }
    }

    /// How much at most; a pause at 0.
    fn piece(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let piece = self.pieces.next().unwrap_or_else(|| {
            self.pieces = self.all.clone().into_iter();
            usize::MAX
        });
        if piece == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(piece)
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = ready!(self.piece(cx)).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.piece(cx)).min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..room])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..3000, 0..8)
}

/// Bytes that a lost or doubled piece would leave looking wrong.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        // xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn exchange(io: &mut DuplexStream, sent: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(io);
    let mut received = Vec::new();
    let sending = async {
        writing.write_all(sent).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reading.read_to_end(&mut received), sending);
    read.unwrap();
    received
}

proptest! {
    /// Whatever is taken and given at a time, each side gets what the other sent, then the end.
    #[test]
    fn bytes_arrive_as_they_were_sent(
        question in 0_usize..100_000,
        answer in 0_usize..100_000,
        at_client in pieces(),
        at_target in pieces(),
        room in 1_usize..5000,
        rate in prop::option::of(1_000_000_u64..1_000_000_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (question, answer) = (noise(question, 1), noise(answer, 2));
            let (mut client, near_client) = duplex(room);
            let (near_target, mut target) = duplex(room);
            let limits = RelayLimits {
                idle: Some(HOUR),
                bandwidth: rate.map(|rate| Arc::new(Bandwidth::new(rate))),
            };
            let counts = Counts::default();
            let mut near_client = Choppy::new(near_client, at_client);
            let mut near_target = Choppy::new(near_target, at_target);
            let (relayed, asked, answered) = tokio::join!(
                relay(&mut near_client, &mut near_target, &limits, &counts),
                exchange(&mut target, &answer),
                exchange(&mut client, &question),
            );
            relayed.unwrap();
            assert_eq!(asked, question);
            assert_eq!(answered, answer);
        });
    }
}
