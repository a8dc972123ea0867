//! Each side of a QUIC link tells the other what was read of its streams, so that whoever sends knows what is unread.
//!
//! QUIC's own windows say nothing of that: to each stream they give as much as it may ever hold, and what slow readers
//! leave counts against everybody. What is told goes by a stream of its own, 16 bytes for each stream that moved: its
//! number, and what was read of it since it began. How much may be sent is for [`Outstanding`] to say. Not counted are
//! streams between controllers and agents themselves, which are always read. A side of a release before tells nothing, and
//! is sent as much as its own windows take.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;

use super::super::purpose::READS;
use super::super::settings::{LEAST_SHARE, LINK_WINDOW, OWN_WINDOW};
use super::outstanding::{MOST, Outstanding};

/// Of one stream: its number, and what was read.
const RECORD: usize = 2 * size_of::<u64>();

/// Instead of what was read: the stream was let go.
const LET_GO: u64 = u64::MAX;

/// Of one stream, before it is told: twice for the least that the other side may send.
const STEP: u64 = LEAST_SHARE as u64 / 2;

/// What is heard at a time: a packet.
const HEARD: usize = 1024;

/// Of one link.
pub(super) struct Reads {
    connection: quinn::Connection,
    /// Sent by this side.
    outstanding: Mutex<Outstanding>,
    /// Read by this side, and not told yet.
    untold: Mutex<Untold>,
    news: Notify,
}

#[derive(Default)]
enum Untold {
    /// Before the first stream that counts, nobody waits for it.
    #[default]
    NotYet,
    /// What was read of each stream that moved. It has one place, however often it did.
    Records(HashMap<u64, u64>),
    /// The other side does not take it, as one of a release before.
    NoMore,
}

/// One stream's part in them.
pub(super) struct Tally {
    reads: Arc<Reads>,
    id: u64,
    read: u64,
    told: u64,
}

fn lock<T>(counted: &Mutex<T>) -> MutexGuard<'_, T> {
    counted.lock().expect("nothing panics while it counts")
}

/// Takes the records that are whole. Returned are those who wait for what they say.
fn take_told(told: &mut impl Buf, outstanding: &mut Outstanding) -> Vec<Waker> {
    let mut waiting = Vec::new();
    while told.remaining() >= RECORD {
        let id = told.get_u64();
        waiting.extend(match told.get_u64() {
            LET_GO => outstanding.was_let_go(id),
            read => outstanding.was_read(id, read),
        });
    }
    waiting
}

impl Reads {
    pub(super) fn new(connection: quinn::Connection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            outstanding: Mutex::default(),
            untold: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// Counts a stream from its first byte on.
    pub(super) fn count(self: &Arc<Self>, id: quinn::StreamId) -> Tally {
        let id = u64::from(id);
        lock(&self.outstanding).open(id);
        Tally {
            reads: self.clone(),
            id,
            read: 0,
            told: 0,
        }
    }

    /// Takes what the other side tells, in the stream that it opened for that.
    pub(super) async fn hear(&self, mut stream: impl AsyncRead + Unpin) {
        // One such stream is enough: the end of another one would be taken for its end.
        let is_first = lock(&self.outstanding).begin();
        if !is_first {
            return;
        }
        self.connection.set_send_window(LINK_WINDOW.into());
        let mut heard = BytesMut::new();
        loop {
            heard.reserve(HEARD);
            match stream.read_buf(&mut heard).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
            let waiting = take_told(&mut heard, &mut lock(&self.outstanding));
            for waiting in waiting {
                waiting.wake();
            }
        }
        self.connection.set_send_window(OWN_WINDOW.into());
        // Of the link too, perhaps: whoever waits to send finds out by sending.
        let waiting = lock(&self.outstanding).end();
        for waiting in waiting {
            waiting.wake();
        }
    }

    fn tell(&self, id: u64, read: u64) {
        let is_news = lock(&self.untold).put(id, read);
        if is_news {
            self.news.notify_one();
        }
    }

    /// As long as the connection lives and the other side takes it.
    async fn keep_telling(self: Arc<Self>) {
        tokio::select! {
            _ = self.tell_all() => {}
            _ = self.connection.closed() => {}
        }
        *lock(&self.untold) = Untold::NoMore;
    }

    async fn tell_all(&self) -> Result<(), quinn::WriteError> {
        let (mut send, _recv) = self.connection.open_bi().await?;
        // It is little, and others wait for it.
        let _ = send.set_priority(1);
        send.write_all(&[READS]).await?;
        loop {
            let records = lock(&self.untold).take();
            match records.is_empty() {
                true => self.news.notified().await,
                false => send.write_all(&records).await?,
            }
        }
    }
}

impl Untold {
    /// True the first time.
    fn begin(&mut self) -> bool {
        let is_first = matches!(self, Self::NotYet);
        if is_first {
            *self = Self::Records(HashMap::new());
        }
        is_first
    }

    /// True if it is to be told.
    fn put(&mut self, id: u64, read: u64) -> bool {
        let Self::Records(records) = self else {
            return false;
        };
        // So many wait only for a side that takes nothing any more.
        let has_room = records.len() < MOST || records.contains_key(&id);
        if has_room {
            records.insert(id, read);
        }
        has_room
    }

    fn take(&mut self) -> Vec<u8> {
        let Self::Records(records) = self else {
            return Vec::new();
        };
        let mut told = Vec::with_capacity(records.len() * RECORD);
        for (id, read) in std::mem::take(records) {
            told.put_u64(id);
            told.put_u64(read);
        }
        told
    }
}

impl Tally {
    /// From the first stream on whose reads are of interest to the other side.
    pub(super) fn begin_to_tell(&self) {
        let is_first = lock(&self.reads.untold).begin();
        if is_first {
            tokio::spawn(self.reads.clone().keep_telling());
        }
    }

    /// Sends what may be sent of `bytes` by `write`, or waits until more of the stream was read.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        write: impl FnOnce(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Held until what is written is counted: others would use the same room.
        let mut outstanding = lock(&self.reads.outstanding);
        let room = ready!(outstanding.poll_room(self.id, cx));
        let most = room.min(bytes.len() as u64) as usize;
        let written = write(cx, &bytes[..most]);
        if let Poll::Ready(Ok(written)) = &written {
            outstanding.sent(self.id, *written as u64);
        }
        written
    }

    pub(super) fn was_read(&mut self, bytes: usize) {
        self.read += bytes as u64;
        if self.read - self.told >= STEP {
            self.told = self.read;
            self.reads.tell(self.id, self.read);
        }
    }

    /// The stream is dropped on this side, after its end or in the middle of what it sent.
    pub(super) fn close(self, is_reset: bool) {
        lock(&self.reads.outstanding).close(self.id, is_reset);
        self.reads.tell(self.id, LET_GO);
    }

    /// The stream is not counted any more; the other side does the same.
    pub(super) fn forget(self) -> Arc<Reads> {
        lock(&self.reads.outstanding).forget(self.id);
        self.reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_is_told_of_once_and_nothing_is_kept_for_nobody() {
        let mut untold = Untold::default();
        assert!(!untold.put(0, 8_192), "nobody waits for it");
        assert!(untold.begin() && !untold.begin());
        assert!(untold.take().is_empty());
        assert!(untold.put(4, 8_192) && untold.put(4, LET_GO));
        assert_eq!(untold.take(), [4, LET_GO].map(u64::to_be_bytes).concat());
        assert!(untold.take().is_empty());

        for id in 0..MOST as u64 {
            assert!(untold.put(id, 8_192));
        }
        assert!(!untold.put(MOST as u64, 8_192) && untold.put(0, LET_GO));
        assert_eq!(untold.take().len(), MOST * RECORD);

        // An older side refuses the stream for it.
        untold = Untold::NoMore;
        assert!(!untold.put(0, 8_192) && !untold.begin());
        assert!(untold.take().is_empty());
    }
}

#[cfg(test)]
mod fuzz {
    use hive_fuzz::Target;

    use super::*;

    /// Of streams that there are and of others, more than was sent and less than before.
    #[test]
    fn what_is_told_is_taken_for_what_it_can_be() {
        let record = |id: u64, read: u64| [id.to_be_bytes(), read.to_be_bytes()].concat();
        let told = [
            record(0, 8_192),
            record(4, 100_000),
            record(0, LET_GO),
            record(8, 1),
        ];
        Target::new("reads", |input: &[u8]| {
            let mut outstanding = Outstanding::default();
            outstanding.begin();
            for id in [0, 4, 8] {
                outstanding.open(id);
                outstanding.sent(id, 100_000);
            }
            let mut told = input;
            take_told(&mut told, &mut outstanding);
            outstanding.check();
            match told.is_empty() {
                true => Ok(()),
                false => Err("half a record"),
            }
        })
        .seeds([told.concat()])
        .words([LET_GO.to_be_bytes(), 4_u64.to_be_bytes()])
        .hold();
    }
}
