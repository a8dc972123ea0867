//! Small calls between controllers in one stream of a link, without HTTP/2: what Raft waits for.
//!
//! A call is written by whoever makes it and read by the task that answers it, so that a message
//! passes no task on its way into the link. Answers may come in any order; calls are begun in the
//! order in which they were made, after the other end has said that it answers any: what an older
//! one was asked was never sent. Nothing here knows what is said.

mod frames;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use prost::bytes::Bytes;
use tokio::io::{AsyncWrite, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use self::frames::{Frame, Incoming, Outgoing};
use crate::grpc::MAX_MESSAGE_BYTES;
use crate::link::{Link, Purpose, Stream};

/// Calls that may wait for an answer in one stream. Those who write over HTTP are bounded before
/// this, and Raft has a handful under way.
const MAX_WAITING: usize = 1_024;

/// Bytes that may wait to be sent to a peer that takes none: some of the largest messages, beside
/// which all small ones have room.
const MAX_UNSENT: usize = 4 * MAX_MESSAGE_BYTES;

/// Calls of one stream that are answered at once; further ones wait unread. As many as a controller
/// answers of its own clients at once. As many are begun before other tasks get their turn.
const MAX_ANSWERED: usize = 64;

/// Answers that may wait to be written before no more calls are read.
const MAX_UNWRITTEN: usize = 1024 * 1024;

/// The caller's side of a stream. Clones share it; it closes with the last of them and of the calls
/// under way.
#[derive(Clone)]
pub struct Calls {
    handle: Arc<Handle>,
}

struct Handle(Arc<Mutex<Calling>>);

/// What the calls and the task that reads their answers share.
struct Calling {
    io: Option<WriteHalf<Stream>>,
    outgoing: Outgoing,
    waiting: HashMap<u32, oneshot::Sender<Result<Bytes, Status>>>,
    next: u32,
    /// Of the task that reads; it also goes on with what could not be written at once.
    reader: Waker,
    let_go: bool,
    welcomed: bool,
    /// Why there are no more calls.
    ended: Option<String>,
}

fn lock(calling: &Mutex<Calling>) -> MutexGuard<'_, Calling> {
    calling
        .lock()
        .expect("nothing panics while it holds the calls")
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut calling = lock(&self.0);
        calling.let_go = true;
        calling.reader.wake_by_ref();
    }
}

impl Calling {
    fn pour(&mut self) {
        let Some(io) = &mut self.io else { return };
        let reader = self.reader.clone();
        let poured = self
            .outgoing
            .poll_pour(io, &mut Context::from_waker(&reader));
        if let Poll::Ready(Err(error)) = poured {
            self.end(error.to_string());
            self.reader.wake_by_ref();
        }
    }

    fn end(&mut self, why: String) {
        self.io = None;
        self.outgoing = Outgoing::default();
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            // Who gave up waiting is not there any more.
            let _ = waiting.send(Err(self.lost(&why)));
        }
        self.ended.get_or_insert(why);
    }

    fn lost(&self, why: &str) -> Status {
        match self.welcomed {
            true => Status::unavailable(why),
            false => Status::unimplemented(why),
        }
    }

    fn answer(&mut self, frame: Frame) {
        // Who gave up waiting is not there any more.
        let Some(waiting) = self.waiting.remove(&frame.number) else {
            return;
        };
        let answer = match Code::from(i32::from(frame.kind)) {
            Code::Ok => Ok(frame.content),
            code => Err(Status::new(code, String::from_utf8_lossy(&frame.content))),
        };
        let _ = waiting.send(answer);
    }
}

impl Calls {
    /// Calls to the other end of a link. The stream is opened by a task that ends with the handles
    /// or the link.
    pub fn over(link: Link) -> Self {
        let calling = Arc::new(Mutex::new(Calling {
            io: None,
            outgoing: Outgoing::default(),
            waiting: HashMap::new(),
            next: 0,
            reader: Waker::noop().clone(),
            let_go: false,
            welcomed: false,
            ended: None,
        }));
        tokio::spawn(read_answers(link, calling.clone()));
        Self {
            handle: Arc::new(Handle(calling)),
        }
    }

    /// Makes a call; it is on its way when this returns, before its answer is awaited.
    ///
    /// # Errors
    /// [`Code::Unimplemented`] when it was certainly not begun, since the other end takes no calls.
    /// [`Code::ResourceExhausted`] when it was not sent, since too much waits for its turn.
    /// [`Code::Unavailable`] when the stream broke, and what was done is unknown. Others are its answer.
    pub fn call(
        &self,
        kind: u8,
        content: Bytes,
    ) -> impl Future<Output = Result<Bytes, Status>> + Send + 'static {
        let sent = self.send(kind, &content);
        let handle = self.handle.clone();
        async move {
            let (number, answer) = sent?;
            let _given_up = GivenUp { handle, number };
            answer
                .await
                .unwrap_or_else(|_| Err(Status::unavailable("the stream has ended")))
        }
    }

    fn send(
        &self,
        kind: u8,
        content: &Bytes,
    ) -> Result<(u32, oneshot::Receiver<Result<Bytes, Status>>), Status> {
        if content.len() > MAX_MESSAGE_BYTES {
            return Err(Status::out_of_range(format!(
                "{} bytes are more than a message may have",
                content.len()
            )));
        }
        let mut calling = lock(&self.handle.0);
        if let Some(why) = &calling.ended {
            return Err(calling.lost(why));
        }
        if calling.waiting.len() >= MAX_WAITING
            || calling.outgoing.bytes + content.len() > MAX_UNSENT
        {
            return Err(Status::resource_exhausted(
                "too many calls wait for an answer",
            ));
        }
        let number = calling.next;
        calling.next = number.wrapping_add(1);
        let (waiting, answer) = oneshot::channel();
        calling.waiting.insert(number, waiting);
        calling.outgoing.put(number, kind, content);
        calling.pour();
        Ok((number, answer))
    }

    /// The stream is over; a new one may do, unless [`Calls::was_refused`].
    pub fn has_ended(&self) -> bool {
        lock(&self.handle.0).ended.is_some()
    }

    /// It ended before it began: the other end may not know such streams.
    pub fn was_refused(&self) -> bool {
        let calling = lock(&self.handle.0);
        calling.ended.is_some() && !calling.welcomed
    }
}

/// An answer that nobody waits for any more is not kept.
struct GivenUp {
    handle: Arc<Handle>,
    number: u32,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        lock(&self.handle.0).waiting.remove(&self.number);
    }
}

async fn read_answers(link: Link, calling: Arc<Mutex<Calling>>) {
    let why = match open_and_read(link, &calling).await {
        Ok(()) => "the other end closed the stream".to_owned(),
        Err(error) => error,
    };
    lock(&calling).end(why);
}

async fn open_and_read(link: Link, calling: &Mutex<Calling>) -> Result<(), String> {
    let stream = link.open(Purpose::Calls).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let (mut reader, writer) = tokio::io::split(stream);
    let mut writer = Some(writer);
    let mut incoming = Incoming::default();
    std::future::poll_fn(move |cx| {
        {
            let mut calling = lock(calling);
            if calling.let_go {
                return Poll::Ready(Ok(()));
            }
            if let Some(why) = &calling.ended {
                return Poll::Ready(Err(why.clone()));
            }
            if !calling.reader.will_wake(cx.waker()) {
                calling.reader = cx.waker().clone();
            }
            calling.pour();
        }
        loop {
            let read = ready!(incoming.poll_read(&mut reader, cx));
            if !read.map_err(|error| error.to_string())? {
                return Poll::Ready(Ok(()));
            }
            let mut calling = lock(calling);
            if writer.is_some() {
                if !incoming.welcome().map_err(|error| error.to_string())? {
                    continue;
                }
                calling.welcomed = true;
                calling.io = writer.take();
                calling.pour();
            }
            while let Some(frame) = incoming.next().map_err(|error| error.to_string())? {
                calling.answer(frame);
            }
        }
    })
    .await
}

/// Answers the calls of one stream until it ends. With `cancel` no more is read, and those under
/// way are answered.
///
/// # Errors
/// When the stream breaks, or its peer does not keep to the form.
pub async fn serve<F, A>(stream: Stream, cancel: CancellationToken, answer: F) -> io::Result<()>
where
    F: Fn(u8, Bytes) -> A,
    A: Future<Output = Result<Bytes, Status>>,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut incoming = Incoming::default();
    let mut outgoing = Outgoing::default();
    outgoing.put_welcome();
    let mut under_way = FuturesUnordered::new();
    let mut cancelled = std::pin::pin!(cancel.cancelled());
    let mut reads = true;
    std::future::poll_fn(move |cx| {
        if reads && cancelled.as_mut().poll(cx).is_ready() {
            reads = false;
        }
        let mut begun = 0;
        loop {
            let mut moved = false;
            while reads
                && begun < MAX_ANSWERED
                && under_way.len() < MAX_ANSWERED
                && outgoing.bytes < MAX_UNWRITTEN
            {
                if let Some(Frame {
                    number,
                    kind,
                    content,
                }) = incoming.next()?
                {
                    let asked = answer(kind, content);
                    // Begun in order: first polls follow the order in which they were pushed. What
                    // tokio holds back because the task has had its turn it wakes in the reverse
                    // order, so it must hold back none.
                    under_way.push(unconstrained(async move { (number, asked.await) }));
                    begun += 1;
                    moved = true;
                    continue;
                }
                match incoming.poll_read(&mut reader, cx)? {
                    Poll::Ready(more) => reads = more,
                    Poll::Pending => break,
                }
            }
            while let Poll::Ready(Some((number, answered))) = under_way.poll_next_unpin(cx) {
                moved = true;
                match answered {
                    Ok(content) => outgoing.put(number, Code::Ok as u8, &content),
                    Err(status) => {
                        let message = Bytes::copy_from_slice(status.message().as_bytes());
                        outgoing.put(number, status.code() as i32 as u8, &message);
                    }
                }
            }
            let was_full = outgoing.bytes >= MAX_UNWRITTEN;
            let poured = outgoing.poll_pour(&mut writer, cx)?;
            if begun >= MAX_ANSWERED {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if moved || (was_full && outgoing.bytes < MAX_UNWRITTEN) {
                continue;
            }
            if !reads && under_way.is_empty() && poured.is_ready() {
                return Pin::new(&mut writer).poll_shutdown(cx);
            }
            return Poll::Pending;
        }
    })
    .await
}

#[cfg(test)]
mod tests;
