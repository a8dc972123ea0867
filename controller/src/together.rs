//! Writes of many callers that go through Raft together: while some batches are on their way, what comes
//! meanwhile is gathered for the next. An entry costs the controllers far more than what one session has to
//! write, and ten thousand sessions write at once.
//!
//! Every caller hears of its own command, as if it had been proposed alone. A failure of the task fails
//! all that wait; it ends with its owner only.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::objects::Writer;
use crate::state::{Command, Outcome, Rejection, level};
use crate::store::{ProposeError, Replica};

/// Commands in one entry. Whoever asks for other things waits until all of it is applied: some
/// milliseconds.
pub const MOST: usize = 128;

/// Bytes of encoded commands in one entry, unless the first is larger: far from what an entry may have.
const MOST_BYTES: usize = 256 * 1024;

/// Batches on their way at once: so that none waits for the other controllers to answer the one before, and
/// few enough that batches grow when there is much to write.
const BATCHES: usize = 4;

/// Callers whose commands wait to be gathered; more wait to be heard.
const QUEUE: usize = 1024;

/// A clone writes together with the others.
#[derive(Clone)]
pub struct Together {
    replica: Replica,
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Result<(), ProposeError>>,
}

impl Together {
    /// The writer, and the task that writes until cancelled.
    pub fn new(replica: Replica, cancel: CancellationToken) -> (Self, impl Future<Output = ()>) {
        let (waiting, gathered) = mpsc::channel(QUEUE);
        let write = run(replica.clone(), gathered, cancel);
        (Self { replica, waiting }, write)
    }
}

impl Writer for Together {
    fn replica(&self) -> &Replica {
        &self.replica
    }

    async fn write(&self, command: Command) -> Result<(), ProposeError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { command, answer };
        self.waiting
            .send(waiting)
            .await
            .map_err(|_| ProposeError::Stopped)?;
        // What was on its way when this controller stopped may have been done.
        answered.await.unwrap_or(Err(ProposeError::TimedOut))
    }
}

async fn run(replica: Replica, mut gathered: mpsc::Receiver<Waiting>, cancel: CancellationToken) {
    let mut next = None;
    let mut under_way = FuturesUnordered::new();
    loop {
        let first = tokio::select! {
            () = cancel.cancelled() => return,
            Some(()) = under_way.next() => continue,
            first = take(&mut next, &mut gathered), if under_way.len() < BATCHES => match first {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = first.command.size();
        let mut batch = vec![first];
        while batch.len() < MOST
            && let Ok(waiting) = gathered.try_recv()
        {
            bytes += waiting.command.size();
            if bytes > MOST_BYTES {
                next = Some(waiting);
                break;
            }
            batch.push(waiting);
        }
        under_way.push(perform(&replica, batch));
    }
}

async fn take(
    next: &mut Option<Waiting>,
    gathered: &mut mpsc::Receiver<Waiting>,
) -> Option<Waiting> {
    match next.take() {
        Some(first) => Some(first),
        None => gathered.recv().await,
    }
}

async fn perform(replica: &Replica, batch: Vec<Waiting>) {
    let may_batch = replica.state().level() >= level::BATCHES;
    let (commands, answers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|waiting| (waiting.command, waiting.answer))
        .unzip();
    let outcomes = match may_batch && commands.len() > 1 {
        true => at_once(replica, commands).await,
        false => {
            let each = commands
                .into_iter()
                .map(|command| async { replica.propose(command).await.map(|_| ()) });
            futures::future::join_all(each).await
        }
    };
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Who waited may have gone.
        let _ = answer.send(outcome);
    }
}

async fn at_once(replica: &Replica, commands: Vec<Command>) -> Vec<Result<(), ProposeError>> {
    let count = commands.len();
    match replica.propose(Command::Batch { commands }).await {
        Ok(Outcome::Batch(replies)) => {
            let own = |reply: Result<(), Rejection>| reply.map_err(ProposeError::Rejected);
            replies.into_iter().map(own).collect()
        }
        Ok(other) => unreachable!("a batch is answered by a batch, not {other:?}"),
        Err(error) => vec![Err(error); count],
    }
}
