//! A flow: datagrams between a controller and the target of a tunnel, behind a stream of purpose `TunnelUdp`.
//!
//! They go as datagrams of the link where it has them and they fit into a packet. The others go through the flow's
//! own stream, in frames: two bytes of length, then that many. Neither way promises that they arrive in order. The
//! flow ends with its stream.

use std::io;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::link::{DatagramSender, Datagrams, NotSent, Stream};
use crate::v1::TunnelOpened;

/// The longest that UDP carries over IPv4: a packet of 65,535 bytes less its headers.
pub const MAX_DATAGRAM: usize = 65_507;

/// The length of no datagram: behind it a `TunnelOpened` says why the flow ends, and the stream does.
const REFUSED: u16 = u16::MAX;

/// Bytes of what is said at the end: a reason, and a sentence for people.
const MAX_REFUSAL: usize = 4 << 10;

const HEADER: usize = size_of::<u16>();

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub enum FlowEnd {
    #[error("the other side ended the flow")]
    Ended,
    /// The target does not take datagrams, in the agent's words.
    #[error("{}", .0.message)]
    Refused(TunnelOpened),
    #[error("the other side sent what is no datagram")]
    Nonsense,
    #[error("the flow's stream broke")]
    Broken(#[source] io::Error),
}

/// Both directions of a flow whose stream is open, from behind `TunnelOpened` on.
pub fn split(stream: Stream, datagrams: Option<Datagrams>) -> (FlowReader, FlowWriter) {
    let sender = datagrams.as_ref().map(Datagrams::sender);
    let (reading, writing) = tokio::io::split(stream);
    let reader = FlowReader {
        datagrams,
        frames: Frames::new(reading),
    };
    let writer = FlowWriter {
        datagrams: sender,
        stream: writing,
    };
    (reader, writer)
}

pub struct FlowReader {
    datagrams: Option<Datagrams>,
    frames: Frames<ReadHalf<Stream>>,
}

pub struct FlowWriter {
    datagrams: Option<DatagramSender>,
    stream: WriteHalf<Stream>,
}

impl FlowReader {
    /// The next datagram. Cancel safe.
    pub async fn receive(&mut self) -> Result<Bytes, FlowEnd> {
        let Some(datagrams) = &mut self.datagrams else {
            return self.frames.next().await;
        };
        tokio::select! {
            frame = self.frames.next() => frame,
            datagram = datagrams.receive() => Ok(datagram),
        }
    }
}

impl FlowWriter {
    /// Sends a datagram; false if it was dropped, as the link has more to send than it can. Where it goes by the
    /// stream it waits for room there.
    pub async fn send(&mut self, datagram: &[u8]) -> io::Result<bool> {
        let sent = match &self.datagrams {
            Some(datagrams) => datagrams.send(datagram),
            None => Err(NotSent::TooLong),
        };
        match sent {
            Ok(()) => return Ok(true),
            Err(NotSent::Full) => return Ok(false),
            Err(NotSent::Ended) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(NotSent::TooLong) => {}
        }
        if datagram.len() > MAX_DATAGRAM {
            return Ok(false);
        }
        self.write(datagram.len() as u16, datagram).await?;
        Ok(true)
    }

    /// Ends the flow in good order.
    pub async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Ends the flow, saying why.
    pub async fn refuse(&mut self, why: &TunnelOpened) -> io::Result<()> {
        self.write(REFUSED, &why.encode_to_vec()).await?;
        self.stream.shutdown().await
    }

    async fn write(&mut self, header: u16, body: &[u8]) -> io::Result<()> {
        // In one piece, so that it is one packet where it fits into one.
        let frame = [&header.to_be_bytes()[..], body].concat();
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }
}

/// What comes by the stream. It holds no memory while nothing comes.
pub(crate) struct Frames<S> {
    stream: S,
    header: [u8; HEADER],
    have: usize,
    body: BytesMut,
}

impl<S: AsyncRead + Unpin> Frames<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            header: [0; HEADER],
            have: 0,
            body: BytesMut::new(),
        }
    }

    /// Cancel safe: what was read of a frame is kept.
    pub(crate) async fn next(&mut self) -> Result<Bytes, FlowEnd> {
        while self.have < HEADER {
            let read = self.stream.read(&mut self.header[self.have..]).await;
            match read.map_err(FlowEnd::Broken)? {
                0 if self.have == 0 => return Err(FlowEnd::Ended),
                0 => return Err(FlowEnd::Nonsense),
                read => self.have += read,
            }
        }
        let length = match u16::from_be_bytes(self.header) {
            REFUSED => return Err(self.refusal().await),
            length => usize::from(length),
        };
        if length > MAX_DATAGRAM {
            return Err(FlowEnd::Nonsense);
        }
        while self.body.len() < length {
            let missing = length - self.body.len();
            self.body.reserve(missing);
            let mut rest = (&mut self.stream).take(missing as u64);
            let read = rest.read_buf(&mut self.body).await;
            if read.map_err(FlowEnd::Broken)? == 0 {
                return Err(FlowEnd::Nonsense);
            }
        }
        self.have = 0;
        Ok(std::mem::take(&mut self.body).freeze())
    }

    async fn refusal(&mut self) -> FlowEnd {
        while self.body.len() <= MAX_REFUSAL {
            match self.stream.read_buf(&mut self.body).await {
                Ok(0) => {
                    return match TunnelOpened::decode(&self.body[..]) {
                        Ok(why) => FlowEnd::Refused(why),
                        Err(_) => FlowEnd::Nonsense,
                    };
                }
                Ok(_) => {}
                Err(error) => return FlowEnd::Broken(error),
            }
        }
        FlowEnd::Nonsense
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::link::{Link, Purpose, memory};

    type Halves = (FlowReader, FlowWriter);

    async fn streams() -> (Stream, Stream, (Link, Link)) {
        let (a, b) = memory::pair(None, None);
        let (here, there) = tokio::join!(a.open(Purpose::TunnelUdp), b.accept());
        (here.unwrap(), there.unwrap().1, (a, b))
    }

    /// A flow at both ends, with datagrams of the link or without.
    async fn flow(has_datagrams: bool) -> (Halves, Halves) {
        let (here, there, (a, b)) = streams().await;
        let own = has_datagrams.then(|| a.begin_flow());
        let other = own.as_ref().and_then(|own| b.join_flow(own.id()));
        (split(here, own), split(there, other))
    }

    #[tokio::test]
    async fn datagrams_of_every_size_arrive_by_either_way() {
        for has_datagrams in [true, false] {
            let ((_, mut writer), (mut reader, _)) = flow(has_datagrams).await;
            for size in [0, 1, 1000, 1200, 1473, 40_000, MAX_DATAGRAM] {
                let sent = vec![size as u8; size];
                // One at a time: by two ways they could overtake each other.
                let (sending, received) = tokio::join!(writer.send(&sent), reader.receive());
                assert!(sending.unwrap());
                assert!(received.unwrap() == sent, "{size} bytes");
            }
            assert!(!writer.send(&vec![0; MAX_DATAGRAM + 1]).await.unwrap());
        }
    }

    #[tokio::test]
    async fn what_was_read_of_a_frame_outlives_whoever_waited_for_it() {
        let (here, mut there, (a, b)) = streams().await;
        let datagrams = a.begin_flow();
        let other = b.join_flow(datagrams.id()).unwrap().sender();
        let (mut reader, _writer) = split(here, Some(datagrams));
        let frame = [&5_u16.to_be_bytes()[..], b"whole"].concat();
        for piece in frame.chunks(2) {
            there.write_all(piece).await.unwrap();
            there.flush().await.unwrap();
            if piece != frame.chunks(2).next_back().unwrap() {
                // A datagram comes between, and takes the wait away from the frame.
                other.send(b"between").unwrap();
                assert_eq!(reader.receive().await.unwrap(), "between");
            }
        }
        assert_eq!(reader.receive().await.unwrap(), "whole");
    }

    #[tokio::test]
    async fn a_flow_says_how_it_ends() {
        let ((_, mut writer), (mut reader, _)) = flow(true).await;
        writer.end().await.unwrap();
        let end = reader.receive().await.unwrap_err();
        assert!(matches!(end, FlowEnd::Ended), "{end:?}");

        let ((_, mut writer), (mut reader, _)) = flow(false).await;
        let why = TunnelOpened {
            reason: "Refused".into(),
            message: "nothing listens there".into(),
        };
        writer.refuse(&why).await.unwrap();
        let end = reader.receive().await.unwrap_err();
        assert!(
            matches!(&end, FlowEnd::Refused(told) if *told == why),
            "{end:?}"
        );

        let ((reading, writer), (mut reader, _)) = flow(true).await;
        drop((reading, writer));
        let end = reader.receive().await.unwrap_err();
        assert!(matches!(end, FlowEnd::Broken(_)), "{end:?}");
    }

    #[tokio::test]
    async fn what_is_no_frame_is_told_apart() {
        for (bytes, what) in [
            (&[0][..], "half a length"),
            (&[0, 2, 1][..], "half a datagram"),
            (&[0xff, 0xf0][..], "too long"),
            (&[0xff, 0xff, 0xff][..], "no refusal"),
        ] {
            let (here, mut there, _links) = streams().await;
            let (mut reader, _writer) = split(here, None);
            there.write_all(bytes).await.unwrap();
            there.shutdown().await.unwrap();
            let end = reader.receive().await.unwrap_err();
            assert!(matches!(end, FlowEnd::Nonsense), "{what}: {end:?}");
        }
    }
}
