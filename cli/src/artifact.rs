//! Components on disk: found, hashed and uploaded before the manifest that names them is sent.
//!
//! A manifest's `spec.artifact.path` flows in, the digest under which the controllers hold the
//! bytes flows out. Nothing is uploaded that the controllers have already.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use hive_manifests::FieldPath;
use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use hive_manifests::function::MAX_COMPONENT_BYTES;

use crate::cluster::{Call, Cluster, Sent, path};
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::session::Session;

/// How often a progress bar is drawn: smooth to the eye, nothing to a processor.
const REDRAW: Duration = Duration::from_millis(100);

/// The bytes that a manifest names.
#[derive(Clone, Debug)]
pub struct Artifact {
    file: PathBuf,
    size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Finds and hashes the artifact of a function's manifest; None if it names none by path.
pub fn of(manifest: &Manifest) -> Result<Option<Artifact>, Failure> {
    let field = FieldPath::of(["spec", "artifact", "path"]);
    let Some(named) = manifest.document.value["spec"]["artifact"]["path"].as_str() else {
        return Ok(None);
    };
    let file = manifest.directory.join(named);
    let refuse = |message: String| {
        Failure::new(format_args!(
            "{}: {field}: {message}",
            manifest.place(&field)
        ))
    };
    let shown = file.display();
    let open = File::open(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refuse(format!("{shown} does not exist"))
            .hint("paths are relative to the manifest; is the component built yet?"),
        _ => refuse(format!("{shown} cannot be opened: {error}")),
    })?;
    let metadata = open
        .metadata()
        .map_err(|error| refuse(format!("{shown} cannot be read: {error}")))?;
    if !metadata.is_file() {
        return Err(refuse(format!("{shown} is not a file")));
    }
    if metadata.len() > MAX_COMPONENT_BYTES {
        return Err(refuse(format!(
            "{shown} has {}; controllers take components of up to {}",
            size_text(metadata.len()),
            size_text(MAX_COMPONENT_BYTES)
        )));
    }
    let (sha256, size) =
        digest(open).map_err(|error| refuse(format!("{shown} cannot be read: {error}")))?;
    Ok(Some(Artifact { file, size, sha256 }))
}

fn digest(mut file: File) -> std::io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
    let hex = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((hex, size))
}

/// Sees to it that the controllers hold the artifact.
pub async fn upload(
    artifact: &Artifact,
    cluster: &Cluster,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let path = path::artifact(&artifact.sha256);
    let present = cluster.raw(&Call::new(Method::HEAD, &path)).await?;
    if present.status() == StatusCode::OK {
        return Ok(());
    }
    let name = artifact.file.display();
    let bytes = read_again(artifact)?;
    let sent = Sent::default();
    let call = Call::new(Method::PUT, &path)
        .body("application/wasm", bytes.into())
        .counted(sent.clone())
        .unbounded();
    if !session.world.interactive {
        session.world.note(format_args!(
            "uploading {name} ({})",
            size_text(artifact.size)
        ))?;
        cluster
            .stream(&call)
            .await
            .map_err(|error| Failure::from(error).context(format_args!("uploading {name}")))?;
        return Ok(());
    }
    let bar = progress_bar(artifact, name.to_string());
    let mut redraw = tokio::time::interval(REDRAW);
    let upload = cluster.stream(&call);
    tokio::pin!(upload);
    let result = loop {
        tokio::select! {
            result = &mut upload => break result,
            _ = redraw.tick() => {
                bar.set_position(sent.bytes());
                if sent.bytes() >= artifact.size {
                    bar.set_message("checking");
                }
            }
        }
    };
    bar.finish_and_clear();
    result
        .map(drop)
        .map_err(|error| Failure::from(error).context(format_args!("uploading {name}")))
}

/// The bytes as they were hashed; a build that replaced the file meanwhile is noticed.
fn read_again(artifact: &Artifact) -> Result<Vec<u8>, Failure> {
    let name = artifact.file.display();
    let mut bytes = Vec::new();
    File::open(&artifact.file)
        .and_then(|file| file.take(MAX_COMPONENT_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::new(format_args!("{name} cannot be read: {error}")))?;
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match hash == artifact.sha256 {
        true => Ok(bytes),
        false => Err(Failure::new(format_args!(
            "{name} changed while it was being applied; apply it again"
        ))),
    }
}

fn progress_bar(artifact: &Artifact, name: String) -> ProgressBar {
    let bar = ProgressBar::new(artifact.size);
    let style = ProgressStyle::with_template(
        "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {msg}",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_prefix(name);
    bar
}

/// `73 KiB`, `18.4 MiB`
pub fn size_text(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let size = bytes as f64;
    if size < KIB {
        format!("{bytes} B")
    } else if size < KIB * KIB {
        format!("{:.0} KiB", size / KIB)
    } else {
        format!("{:.1} MiB", size / KIB / KIB)
    }
}
