//! `hivectl backup`: one file with everything that makes the swarm, taken while it serves.
//!
//! The controllers stream it; here it is sealed with a passphrase on its way to the disk, read back
//! whole, and only then given its name. It never touches the disk unsealed unless that is asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::{Buf, Bytes};
use clap::{Args, Subcommand};
use hive_identity::{BackupError, BackupHeader, BackupReader, BackupWriter};
use hive_manifests::GROUP;
use http::Method;
use http_body_util::BodyExt;

use crate::cluster::{Call, path};
use crate::failure::{Failure, chain};
use crate::session::Session;

/// Pieces between the network and the disk.
const PIECES: usize = 16;

const BUFFER_BYTES: usize = 256 * 1024;

/// A passphrase on one line; more means that it is another file.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "A backup holds every secret of the swarm and the key of its CA: whoever reads it is the swarm. It is \
sealed with the passphrase (ChaCha20-Poly1305); without it nobody can restore it.

Examples:
  hivectl backup swarm.backup --passphrase-file ~/.hive-passphrase
  hivectl backup swarm.backup --artifacts --passphrase-file ~/.hive-passphrase
  hivectl backup verify swarm.backup --passphrase-file ~/.hive-passphrase
  hive controller restore --from swarm.backup --passphrase-file ~/.hive-passphrase"
)]
pub struct Backup {
    #[command(subcommand)]
    command: Option<Command>,

    /// Where to put it; must not exist
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,

    /// With the bytes of all components and what was compiled from them
    #[arg(long)]
    artifacts: bool,

    /// Seal it with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Leave it unsealed: whoever reads the file is the swarm
    #[arg(long, conflicts_with = "passphrase_file")]
    plaintext: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a backup whole, and say what it is of
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The passphrase that it is sealed with
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub async fn run(backup: Backup, session: &mut Session<'_>) -> Result<(), Failure> {
    match (backup.command, backup.file) {
        (Some(Command::Verify(verify)), _) => {
            let passphrase = passphrase(verify.passphrase_file.as_deref())?;
            let header = blocking({
                let file = verify.file.clone();
                move || check(&file, passphrase.as_deref())
            })
            .await
            .map_err(|error| failed(&verify.file, &error))?;
            session
                .world
                .line(format_args!("{} is whole: {header}", verify.file.display()))?;
            Ok(())
        }
        (None, Some(file)) => {
            if backup.passphrase_file.is_none() && !backup.plaintext {
                return Err(Failure::usage(
                    "a backup holds all secrets and the CA's key: seal it with --passphrase-file FILE, or say --plaintext",
                ));
            }
            let passphrase = passphrase(backup.passphrase_file.as_deref())?;
            take(&file, backup.artifacts, passphrase, session).await
        }
        (None, None) => Err(Failure::usage("where to? give a FILE")),
    }
}

fn passphrase(file: Option<&Path>) -> Result<Option<Vec<u8>>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_PASSPHRASE_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| Failure::new(format_args!("cannot read {}: {error}", file.display())))?;
    // Editors end a line.
    let text = text.trim_ascii_end().to_owned();
    if text.is_empty() || text.len() as u64 > MAX_PASSPHRASE_BYTES {
        return Err(Failure::new(format_args!(
            "{} holds no passphrase: one line, at most {MAX_PASSPHRASE_BYTES} bytes",
            file.display()
        )));
    }
    Ok(Some(text))
}

async fn take(
    file: &Path,
    artifacts: bool,
    passphrase: Option<Vec<u8>>,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::new(format_args!(
            "{} exists: a backup never overwrites anything",
            file.display()
        )));
    }
    let partial = file.with_added_extension("partial");
    let cluster = session.cluster().await?;
    let path = path::with_query(
        &format!("/apis/{GROUP}/v1/backups"),
        artifacts.then_some(("artifacts", "true")),
    );
    let response = cluster
        .stream(&Call::new(Method::POST, &path).unbounded())
        .await?;
    let (pieces, received) = sync_channel(PIECES);
    let sealed = passphrase.is_some();
    let written = blocking({
        let partial = partial.clone();
        let name = file.to_owned();
        move || {
            let kept = write(&partial, received, passphrase.as_deref())
                .and_then(|()| check(&partial, passphrase.as_deref()))
                .and_then(|header| {
                    keep(&partial, &name)?;
                    Ok(header)
                });
            if kept.is_err() {
                // What is left of it is of no use.
                let _ = fs::remove_file(&partial);
            }
            kept
        }
    });
    let fed = feed(response.into_body(), pieces);
    let ((), written) = tokio::join!(fed, written);
    let header = written.map_err(|error| failed(file, &error))?;
    session
        .world
        .line(format_args!("{}: {header}", file.display()))?;
    if !sealed {
        session.world.warn(
            "the backup is not sealed: it holds every secret of the swarm and its CA's key. Keep it as you keep those",
        )?;
    }
    if header.artifacts < header.registered_artifacts {
        session.world.note(
            "Artifacts are not in it: after a restoration functions go on where they run, and need `hivectl apply` \
             to start elsewhere. --artifacts includes them.",
        )?;
    }
    Ok(())
}

/// Hands the pieces of the answer to the thread that writes.
async fn feed(mut body: kube::client::Body, pieces: SyncSender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        let ends = piece.is_err();
        let pieces = pieces.clone();
        // It waits where the disk is slower than the network.
        let sent = blocking(move || pieces.send(piece)).await;
        if ends || sent.is_err() {
            return;
        }
    }
}

/// Seals what is received on its way to the file.
fn write(
    partial: &Path,
    received: Receiver<io::Result<Bytes>>,
    passphrase: Option<&[u8]>,
) -> Result<(), BackupError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(partial)?;
    let pieces = Pieces {
        received,
        piece: Bytes::new(),
    };
    let mut from = BackupReader::new(pieces, None)?;
    let out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut to = BackupWriter::new(out, from.header().clone(), passphrase)?;
    io::copy(&mut from, &mut to)?;
    let out = to.finish()?;
    out.into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()?;
    Ok(())
}

fn check(file: &Path, passphrase: Option<&[u8]>) -> Result<BackupHeader, BackupError> {
    let file = BufReader::with_capacity(BUFFER_BYTES, File::open(file)?);
    BackupReader::new(file, passphrase)?.finish()
}

/// Gives the file its name, durably.
fn keep(partial: &Path, file: &Path) -> io::Result<()> {
    fs::rename(partial, file)?;
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn failed(file: &Path, error: &BackupError) -> Failure {
    Failure::new(format_args!("{}: {}", file.display(), chain(error)))
}

/// The pieces as one stream of bytes.
struct Pieces {
    received: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.received.recv() {
                Ok(piece) => self.piece = piece?,
                // The connection ended; whether that was the end of the backup is told by its content.
                Err(_) => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..taken]);
        Ok(taken)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
