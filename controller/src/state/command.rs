//! The only way to write: one enum, matched exhaustively by `State::apply`.
//! Times, ids and random numbers are put in by the proposer.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::body::MalformedBody;
use super::{Body, Key, Member, Object, metering};

/// Its serde form leaves bodies out: encode it by [`Command::encode`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Stores a new object. `body` is complete but for its resourceVersion.
    Create {
        key: Key,
        #[serde(skip)]
        body: Body,
    },
    /// Replaces a whole object if its revision is still `expect` (compare-and-swap; `None` = whatever it is).
    /// A body equal to what is stored changes nothing and takes no revision.
    Replace {
        key: Key,
        #[serde(skip)]
        body: Body,
        expect: Option<u64>,
    },
    Delete {
        key: Key,
        expect: Option<u64>,
        uid: Option<String>,
    },
    /// A majority of controllers holds the artifact durably. Of one that is registered already it
    /// says that it is about to be named: it is not forgotten by what was decided before.
    RegisterArtifact {
        sha256: String,
        size: u64,
    },
    /// Forgets an artifact unless it was registered anew since revision `registered`.
    ForgetArtifact {
        sha256: String,
        registered: u64,
    },
    /// Gives a fresh Raft id to a controller that joins.
    AdmitController {
        member: Member,
    },
    /// The same for the holder of a device key, who gets the same id when it asks again.
    AdmitDevice {
        key: String,
        member: Member,
    },
    /// All members understand commands up to this level. Idempotent.
    RaiseLevel {
        to: u32,
    },
    /// A known controller listens elsewhere now. Idempotent.
    MoveController {
        id: u64,
        member: Member,
    },
    RemoveController {
        id: u64,
    },
    /// What functions of a node used; counts unless it was counted before. Idempotent.
    Meter {
        batch: metering::Batch,
    },
    /// Several in one entry, each by itself: one that is refused keeps none of the others back. None of
    /// them is a batch.
    Batch {
        #[serde(skip)]
        commands: Vec<Command>,
    },
}

/// First byte of an encoded command. Raised when an older program could misread the newer form.
const FORMAT: u8 = 1;

/// Bytes of names, a revision, and the body's layout.
const USUAL_HEAD: usize = 256;

/// Bytes that are no command of this version.
#[derive(Debug, thiserror::Error)]
pub enum MalformedCommand {
    #[error("ends too early")]
    Short,
    #[error("is written in form {0}, which is not known here")]
    Format(u8),
    #[error("its first part is no command known here")]
    Head(#[from] serde_json::Error),
    #[error("the body of its object")]
    Body(#[from] MalformedBody),
    #[error("the body of its object is not JSON")]
    NotJson,
    #[error("a batch within a batch")]
    Nested,
}

impl Command {
    fn body(&self) -> Option<&Body> {
        match self {
            Self::Create { body, .. } | Self::Replace { body, .. } => Some(body),
            Self::Delete { .. }
            | Self::RegisterArtifact { .. }
            | Self::ForgetArtifact { .. }
            | Self::AdmitController { .. }
            | Self::AdmitDevice { .. }
            | Self::RaiseLevel { .. }
            | Self::MoveController { .. }
            | Self::RemoveController { .. }
            | Self::Meter { .. }
            | Self::Batch { .. } => None,
        }
    }

    /// Bytes of its encoded form, near enough to bound batches. Those of a batch itself are not counted.
    pub fn size(&self) -> usize {
        let entries = match self {
            Self::Meter { batch } => batch.entries.len(),
            _ => 0,
        };
        USUAL_HEAD * (1 + entries) + self.body().map_or(0, Body::len)
    }

    /// The form in which the log and the network carry it: all but the body as JSON, so that
    /// versions can differ a little, then the body's bytes as they are; of a batch its commands follow, each
    /// with its length.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size());
        out.put_u8(FORMAT);
        out.put_u32_le(0);
        let start = out.len();
        serde_json::to_writer(&mut out, self)
            .expect("a command has string keys only, and a Vec takes any write");
        let length = u32::try_from(out.len() - start).expect("names are far shorter than 4 GiB");
        out[start - 4..start].copy_from_slice(&length.to_le_bytes());
        if let Some(body) = self.body() {
            body.put(&mut out);
        }
        if let Self::Batch { commands } = self {
            for command in commands {
                let encoded = command.encode();
                let length = u32::try_from(encoded.len()).expect("a command is far below 4 GiB");
                out.put_u32_le(length);
                out.extend_from_slice(&encoded);
            }
        }
        out.into()
    }

    /// # Errors
    /// When it is of another version of this program, or no command at all.
    pub fn decode(input: Bytes) -> Result<Self, MalformedCommand> {
        let (mut command, rest) = Self::decode_head(input)?;
        match &mut command {
            Self::Batch { commands } => *commands = decode_all(rest)?,
            single => single.decode_body(rest)?,
        }
        Ok(command)
    }

    /// A command without what follows its head, and that.
    fn decode_head(mut input: Bytes) -> Result<(Self, Bytes), MalformedCommand> {
        if input.is_empty() {
            return Err(MalformedCommand::Short);
        }
        match input.get_u8() {
            FORMAT => {}
            other => return Err(MalformedCommand::Format(other)),
        }
        let head = get_framed(&mut input)?;
        Ok((serde_json::from_slice(&head)?, input))
    }

    fn decode_body(&mut self, rest: Bytes) -> Result<(), MalformedCommand> {
        if let Self::Create { body, .. } | Self::Replace { body, .. } = self {
            *body = Body::get(rest)?;
        }
        Ok(())
    }

    /// What [`Command::decode`] takes on trust: that a body is JSON. For what another process sent.
    pub fn check(&self) -> Result<(), MalformedCommand> {
        match self.body() {
            Some(body) if !body.is_json() => Err(MalformedCommand::NotJson),
            _ => match self {
                Self::Batch { commands } => commands.iter().try_for_each(Self::check),
                _ => Ok(()),
            },
        }
    }
}

/// The commands of a batch. What it holds is a stranger's: batches in it are refused before they are
/// looked into.
fn decode_all(mut input: Bytes) -> Result<Vec<Command>, MalformedCommand> {
    let mut commands = Vec::new();
    while !input.is_empty() {
        let (mut command, rest) = Command::decode_head(get_framed(&mut input)?)?;
        if matches!(command, Command::Batch { .. }) {
            return Err(MalformedCommand::Nested);
        }
        command.decode_body(rest)?;
        commands.push(command);
    }
    Ok(commands)
}

/// Bytes after their length.
fn get_framed(input: &mut Bytes) -> Result<Bytes, MalformedCommand> {
    if input.len() < 4 {
        return Err(MalformedCommand::Short);
    }
    let length = input.get_u32_le() as usize;
    if input.len() < length {
        return Err(MalformedCommand::Short);
    }
    Ok(input.split_to(length))
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    Created(Arc<Object>),
    Replaced(Arc<Object>),
    /// The body was what is stored already.
    Unchanged(Arc<Object>),
    /// The object as it was, with the revision of its deletion.
    Deleted(Arc<Object>),
    Controller(u64),
    Done,
    /// Of each command of a batch, in their order. What they made is in the state.
    Batch(Vec<Result<(), Rejection>>),
}

/// Why a committed command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("already exists")]
    AlreadyExists,
    #[error("not found")]
    NotFound,
    /// What it would create lies in a namespace that is not there, or no longer.
    #[error("its namespace does not exist")]
    NoNamespace,
    /// The object is at another revision, or has another uid, than the writer thought.
    #[error("changed in the meantime: it is at revision {current} now")]
    Conflict { current: u64 },
    /// Kubernetes' words; amounts by the names that the quota has for them.
    #[error("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")]
    QuotaExceeded {
        quota: String,
        requested: String,
        used: String,
        limited: String,
    },
}

pub type Reply = Result<Outcome, Rejection>;
