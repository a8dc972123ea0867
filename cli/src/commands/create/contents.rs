//! `hivectl create configmap | secret`: files and values of the command line become `data`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use hive_manifests::function::{DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE};
use hive_registry::Credentials;
use serde_json::{Value, json};

use super::How;
use crate::failure::Failure;

/// Of one object; a file larger than that cannot be in it.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct ConfigMap {
    pub name: String,

    #[command(flatten)]
    sources: Sources,

    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, Args)]
pub struct Secret {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Of any files and values
    #[command(after_help = "Examples:
  hivectl create secret generic login --from-file password.txt
  hivectl create secret generic login --from-file password=/dev/stdin

Values of --from-literal stay in your shell's history: a file does not.")]
    Generic(Generic),
    /// Of a certificate and its key
    Tls(Tls),
    /// Of who one is to a registry of images
    #[command(after_help = "Examples:
  hivectl create secret docker-registry ghcr --docker-server ghcr.io --docker-username me --docker-password-file token.txt
  echo \"$TOKEN\" | hivectl create secret docker-registry ghcr --docker-server ghcr.io --docker-username me --docker-password-file /dev/stdin

A function names it in spec.imagePullSecrets. A --docker-password stays in your shell's history: a file does not.")]
    DockerRegistry(DockerRegistry),
}

#[derive(Debug, Args)]
struct Generic {
    name: String,

    #[command(flatten)]
    sources: Sources,

    /// The type, for whoever reads it
    #[arg(long = "type", value_name = "TYPE", default_value = "Opaque")]
    kind: String,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct Tls {
    name: String,

    /// The certificate, and those between it and its authority (PEM)
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct DockerRegistry {
    name: String,

    /// The registry's host, with its port where it has one
    #[arg(
        long,
        value_name = "HOST",
        default_value = "https://index.docker.io/v1/"
    )]
    docker_server: String,

    /// Who one is there
    #[arg(long, value_name = "NAME")]
    docker_username: String,

    /// The password or token, on the command line
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "docker_password_file"
    )]
    docker_password: Option<String>,

    /// The password or token, in a file
    #[arg(long, value_name = "FILE", conflicts_with = "docker_password")]
    docker_password_file: Option<PathBuf>,

    /// Noted beside it; nobody asks for it
    #[arg(long, value_name = "ADDRESS")]
    docker_email: Option<String>,

    #[command(flatten)]
    how: How,
}

/// Where keys and values come from.
#[derive(Debug, Args)]
struct Sources {
    /// A key and its value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,

    /// A file under its own name or under KEY, or all files of a directory; may be repeated
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,

    /// A file of lines KEY=VALUE; may be repeated
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<PathBuf>,
}

type Data = BTreeMap<String, Vec<u8>>;

impl ConfigMap {
    /// Text under `data`, everything else under `binaryData`.
    pub fn content(&self) -> Result<Value, Failure> {
        let mut content = json!({});
        for (key, bytes) in self.sources.read()? {
            match String::from_utf8(bytes) {
                Ok(text) => content["data"][key] = text.into(),
                Err(binary) => {
                    content["binaryData"][key] = BASE64.encode(binary.as_bytes()).into();
                }
            }
        }
        Ok(content)
    }
}

impl Secret {
    pub fn content(&self) -> Result<Value, Failure> {
        let (kind, data) = match &self.kind {
            Kind::Generic(generic) => (generic.kind.as_str(), generic.sources.read()?),
            Kind::Tls(tls) => {
                let mut data = Data::new();
                insert(&mut data, "tls.crt", file(&tls.cert)?)?;
                insert(&mut data, "tls.key", file(&tls.key)?)?;
                ("kubernetes.io/tls", data)
            }
            Kind::DockerRegistry(registry) => {
                let mut data = Data::new();
                insert(&mut data, DOCKER_CONFIG_KEY, registry.config()?)?;
                (DOCKER_CONFIG_TYPE, data)
            }
        };
        let data: BTreeMap<String, String> = data
            .into_iter()
            .map(|(key, bytes)| (key, BASE64.encode(bytes)))
            .collect();
        Ok(json!({ "type": kind, "data": data }))
    }

    pub fn into_named(self) -> (String, How) {
        match self.kind {
            Kind::Generic(generic) => (generic.name, generic.how),
            Kind::Tls(tls) => (tls.name, tls.how),
            Kind::DockerRegistry(registry) => (registry.name, registry.how),
        }
    }
}

impl DockerRegistry {
    /// As `docker login` writes it.
    fn config(&self) -> Result<Vec<u8>, Failure> {
        let password = match (&self.docker_password, &self.docker_password_file) {
            (None, Some(path)) => {
                let text = String::from_utf8(file(path)?).map_err(|_| {
                    Failure::new(format_args!("{}: not UTF-8 text", path.display()))
                })?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (given, _) => given.clone().unwrap_or_default(),
        };
        if password.is_empty() {
            return Err(Failure::usage("the password is empty"));
        }
        let email = self.docker_email.as_deref();
        let config =
            Credentials::write(&self.docker_server, &self.docker_username, &password, email);
        Ok(config.to_string().into_bytes())
    }
}

impl Sources {
    fn read(&self) -> Result<Data, Failure> {
        let mut data = Data::new();
        for pair in &self.from_literal {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::usage(format_args!("--from-literal {pair:?} is not KEY=VALUE"))
            })?;
            insert(&mut data, key, value.as_bytes().to_vec())?;
        }
        for source in &self.from_file {
            match source.split_once('=') {
                Some((key, path)) => insert(&mut data, key, file(Path::new(path))?)?,
                None => insert_path(&mut data, Path::new(source))?,
            }
        }
        for path in &self.from_env_file {
            insert_lines(&mut data, path)?;
        }
        Ok(data)
    }
}

/// A file under its own name, or those of a directory.
fn insert_path(data: &mut Data, path: &Path) -> Result<(), Failure> {
    if !path.is_dir() {
        return insert(data, name_of(path)?, file(path)?);
    }
    let failed = |error| Failure::new(format_args!("cannot read {}: {error}", path.display()));
    for found in fs::read_dir(path).map_err(failed)? {
        let found = found.map_err(failed)?.path();
        if found.is_file() {
            insert(data, name_of(&found)?, file(&found)?)?;
        }
    }
    Ok(())
}

fn insert_lines(data: &mut Data, path: &Path) -> Result<(), Failure> {
    let text = String::from_utf8(file(path)?)
        .map_err(|_| Failure::new(format_args!("{}: not UTF-8 text", path.display())))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| {
            Failure::new(format_args!(
                "{}:{}: not KEY=VALUE",
                path.display(),
                number + 1
            ))
        })?;
        insert(data, key, value.as_bytes().to_vec())?;
    }
    Ok(())
}

fn name_of(path: &Path) -> Result<&str, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| {
        Failure::usage(format_args!(
            "{} has no name that can be a key: say KEY={0}",
            path.display()
        ))
    })
}

fn insert(data: &mut Data, key: &str, value: Vec<u8>) -> Result<(), Failure> {
    match data.insert(key.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format_args!(
            "the key {key:?} is named twice"
        ))),
    }
}

/// At most what an object holds: what is larger is refused here, by name.
fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::new(format_args!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(format_args!(
            "{} is larger than an object may be ({} KiB)",
            path.display(),
            LARGEST >> 10
        )));
    }
    Ok(bytes)
}
