//! A backup, streamed while the swarm serves: the state is an O(1) clone of one revision.
//!
//! Whoever may make one receives every secret and the CA's key: administrators only. It is sealed
//! by the client, so that its passphrase never leaves the machine of whoever chose it.

use std::io::{self, Write};
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::errors::ApiError;
use super::{Api, Call};
use crate::artifacts::{ArtifactFiles, Digest};
use crate::backup::{self, Sections, SwarmIdentity};
use crate::objects::timestamp;
use crate::state::State;

/// Pieces of 64 KiB between the writer and the client: enough that neither waits for the other's
/// every step.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 64 * 1024;

pub(super) async fn serve(context: &Api, call: &Call) -> Result<Response, ApiError> {
    if call.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let permit = context.permits.stream()?;
    let state = context.newest().await?;
    let digests = match call.query.artifacts {
        true => held(context, &state).await?,
        false => Vec::new(),
    };
    let cluster = context.authority.certificate().cluster().to_owned();
    let created = timestamp(SystemTime::now());
    let header = backup::header(&state, &cluster, created, digests.len() as u64);
    let identity = SwarmIdentity::of(&context.authority);
    tracing::info!(
        revision = header.revision,
        artifacts = header.artifacts,
        "backup begins"
    );
    let (sender, pieces) = mpsc::channel(PIECES);
    let files = context.artifacts.files().clone();
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(sender.clone()));
        let written = (|| {
            let mut sections = Sections::begin(out, header, &identity, &state)?;
            for digest in &digests {
                copy(&files, digest, &mut sections)?;
            }
            let out = sections.finish()?;
            out.into_inner().map_err(|error| error.into_error())?;
            Ok::<_, hive_identity::BackupError>(())
        })();
        if let Err(error) = written {
            tracing::warn!(%error, "a backup was not finished");
            // The client must not take what it has for whole.
            drop(sender.blocking_send(Err(io::Error::other("the backup failed"))));
        }
    });
    // The permit is held until the last piece is out.
    let stream = ReceiverStream::new(pieces).map(move |piece| {
        let _held = &permit;
        piece
    });
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

/// The registered artifacts, each of which is here when this returns.
async fn held(context: &Api, state: &State) -> Result<Vec<Digest>, ApiError> {
    let mut digests = Vec::new();
    for (hex, _) in state.artifacts() {
        let digest: Digest = hex.parse().map_err(ApiError::internal)?;
        context.artifacts.ensure(&digest).await.map_err(|error| {
            ApiError::Unavailable(format!(
                "artifact {digest} cannot be had at the moment: {error}"
            ))
        })?;
        digests.push(digest);
    }
    Ok(digests)
}

fn copy<W: Write>(
    files: &ArtifactFiles,
    digest: &Digest,
    sections: &mut Sections<W>,
) -> io::Result<()> {
    let mut file = std::fs::File::open(files.path(digest))?;
    sections.artifact(digest)?;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = io::Read::read(&mut file, &mut buffer)?;
        // An empty chunk ends it.
        sections.chunk(&buffer[..read])?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Hands what is written to the response; an error when the client is gone.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
