//! Which swarm a command talks to: finding, reading and changing the kubeconfig.
//!
//! An ordinary kubeconfig flows in; the servers and credentials of one context flow out. A
//! cluster entry may list further servers in an extension, so that losing one controller does not
//! lose the command line:
//!
//! ```yaml
//! extensions: [{name: hive.dev/servers, extension: {servers: ["https://a:6443", "https://b:6443"]}}]
//! ```
//!
//! It never prints a credential; `redact` is what `config view` shows.

pub mod environment;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kube::config::{Cluster, Kubeconfig, NamedContext};
use serde_json::{Value, json};

use crate::suggest;
use crate::world::Environment;

/// The extension of a cluster entry that lists all its servers.
const SERVERS_EXTENSION: &str = "hive.dev/servers";

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("there is no kubeconfig: looked at {}", list(.0))]
    Missing(Vec<PathBuf>),
    #[error("cannot read the kubeconfig")]
    Read(#[source] kube::config::KubeconfigError),
    #[error("the kubeconfig has no current context")]
    NoCurrentContext,
    #[error("the kubeconfig has no context {name:?}{suggestion}")]
    UnknownContext { name: String, suggestion: String },
    #[error("the kubeconfig has no cluster {name:?}{suggestion}")]
    UnknownCluster { name: String, suggestion: String },
    #[error("the cluster {0:?} of the kubeconfig names no server")]
    NoServer(String),
    #[error("the server {server:?} of the kubeconfig is not a URL: {message}")]
    ServerUrl { server: String, message: String },
    #[error("the kubeconfig cannot be used")]
    Unusable(#[source] kube::config::KubeconfigError),
    #[error("the kubeconfig's certificates or credentials cannot be used")]
    Credentials(#[source] kube::Error),
    #[error("the kubeconfig's plugin gave no credential: {0}")]
    Plugin(String),
    #[error("{variable}: {message}")]
    Environment {
        variable: &'static str,
        message: String,
    },
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kubeconfig cannot be written as YAML")]
    Serialize(#[source] serde_saphyr::ser::Error),
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

impl KubeconfigError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some(
                "`hive up` starts a swarm here and writes one; or name yours with --kubeconfig"
                    .into(),
            ),
            Self::NoCurrentContext => Some(
                "choose one with `hivectl config use-context NAME`, or name it with --context"
                    .into(),
            ),
            Self::UnknownContext { .. } => Some("`hivectl config get-contexts` lists them".into()),
            _ => None,
        }
    }
}

/// The files of the kubeconfig: `--kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`, else
/// the one that `hive up` writes.
pub fn locate(
    explicit: Option<&Path>,
    environment: &Environment,
) -> Result<Vec<PathBuf>, KubeconfigError> {
    if let Some(path) = explicit {
        return match path.exists() {
            true => Ok(vec![path.to_owned()]),
            false => Err(KubeconfigError::Missing(vec![path.to_owned()])),
        };
    }
    if let Some(value) = environment.get("KUBECONFIG") {
        let named: Vec<PathBuf> = std::env::split_paths(value)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        // As kubectl: files of the list that do not exist are passed over.
        let present: Vec<PathBuf> = named.iter().filter(|path| path.exists()).cloned().collect();
        return match present.is_empty() {
            true => Err(KubeconfigError::Missing(named)),
            false => Ok(present),
        };
    }
    let candidates: Vec<PathBuf> = [
        environment.home().map(|home| home.join(".kube/config")),
        environment
            .data_home()
            .map(|data| data.join("hive/up/kubeconfig")),
    ]
    .into_iter()
    .flatten()
    .collect();
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => Ok(vec![path.clone()]),
        None => Err(KubeconfigError::Missing(candidates)),
    }
}

/// Reads and merges the files; the first to name something wins.
pub fn read(paths: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
    paths
        .iter()
        .try_fold(Kubeconfig::default(), |merged, path| {
            Kubeconfig::read_from(path).and_then(|next| merged.merge(next))
        })
        .map_err(KubeconfigError::Read)
}

/// Reads one file as it is: relative paths in it stay relative, so that it can be written back.
pub fn read_unresolved(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let text = fs::read_to_string(path).map_err(|source| {
        KubeconfigError::Read(kube::config::KubeconfigError::ReadConfig(
            source,
            path.to_owned(),
        ))
    })?;
    Kubeconfig::from_yaml(&text).map_err(KubeconfigError::Read)
}

/// The context that commands use.
pub fn context<'a>(
    kubeconfig: &'a Kubeconfig,
    wanted: Option<&str>,
) -> Result<&'a NamedContext, KubeconfigError> {
    let name = wanted
        .or(kubeconfig.current_context.as_deref())
        .filter(|name| !name.is_empty())
        .ok_or(KubeconfigError::NoCurrentContext)?;
    kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == name)
        .ok_or_else(|| KubeconfigError::UnknownContext {
            name: name.to_owned(),
            suggestion: suggest::did_you_mean(
                name,
                kubeconfig
                    .contexts
                    .iter()
                    .map(|context| context.name.as_str()),
            ),
        })
}

/// The cluster entry of a context.
pub fn cluster<'a>(kubeconfig: &'a Kubeconfig, name: &str) -> Result<&'a Cluster, KubeconfigError> {
    kubeconfig
        .clusters
        .iter()
        .find(|cluster| cluster.name == name)
        .and_then(|named| named.cluster.as_ref())
        .ok_or_else(|| KubeconfigError::UnknownCluster {
            name: name.to_owned(),
            suggestion: suggest::did_you_mean(
                name,
                kubeconfig
                    .clusters
                    .iter()
                    .map(|cluster| cluster.name.as_str()),
            ),
        })
}

/// All servers of a cluster, in the order in which they are tried.
pub fn servers(cluster: &Cluster) -> Vec<String> {
    let mut servers: Vec<String> = cluster.server.iter().cloned().collect();
    let listed = cluster
        .extensions
        .iter()
        .flatten()
        .filter(|extension| extension.name == SERVERS_EXTENSION)
        .filter_map(|extension| extension.extension["servers"].as_array())
        .flatten()
        .filter_map(Value::as_str);
    for server in listed {
        if servers.iter().all(|known| known != server) {
            servers.push(server.to_owned());
        }
    }
    servers
}

/// What lists all servers in a cluster entry.
pub fn servers_extension(servers: &[String]) -> Value {
    json!({ "name": SERVERS_EXTENSION, "extension": { "servers": servers } })
}

/// Replaces one file of the kubeconfig; the old content is whole until the new one is.
pub fn write(path: &Path, kubeconfig: &Kubeconfig) -> Result<(), KubeconfigError> {
    let text = yaml(kubeconfig)?;
    let failed = |source| KubeconfigError::Write {
        path: path.to_owned(),
        source,
    };
    // A link to the real file, as dotfile tools make, stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = target.with_extension(format!("hivectl-{}", std::process::id()));
    let written = create_private(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &target));
    written.map_err(|error| {
        // The half-written copy holds credentials: don't leave it behind.
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

/// Readable by its owner only: a kubeconfig holds credentials.
pub fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub fn yaml(kubeconfig: &Kubeconfig) -> Result<String, KubeconfigError> {
    serde_saphyr::to_string(kubeconfig).map_err(KubeconfigError::Serialize)
}

/// The kubeconfig as a value without its secrets.
pub fn redact(kubeconfig: &Kubeconfig) -> serde_json::Result<Value> {
    const SECRETS: [&str; 3] = ["token", "password", "client-key-data"];
    let mut value = serde_json::to_value(kubeconfig)?;
    for user in value["users"].as_array_mut().into_iter().flatten() {
        let Some(fields) = user["user"].as_object_mut() else {
            continue;
        };
        for (key, field) in fields.iter_mut() {
            if SECRETS.contains(&key.as_str()) && !field.is_null() {
                *field = "REDACTED".into();
            }
            // Plugins' arguments and environment hold what their authors like.
            if key == "exec" || key == "auth-provider" {
                *field = "REDACTED".into();
            }
        }
        fields.retain(|_, field| !field.is_null());
    }
    for cluster in value["clusters"].as_array_mut().into_iter().flatten() {
        if let Some(data) = cluster["cluster"].get_mut("certificate-authority-data") {
            *data = "DATA+OMITTED".into();
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: home
clusters:
- name: home
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: Y2E=
    extensions:
    - name: hive.dev/servers
      extension:
        servers: [https://127.0.0.1:6443, https://127.0.0.1:6444]
contexts:
- {name: home, context: {cluster: home, user: admin, namespace: prod}}
users:
- {name: admin, user: {token: s3cret, username: me}}
";

    #[test]
    fn all_servers_of_the_cluster_are_known_once() {
        let kubeconfig = Kubeconfig::from_yaml(FILE).unwrap();
        let context = context(&kubeconfig, None).unwrap();
        let cluster = cluster(&kubeconfig, &context.context.as_ref().unwrap().cluster).unwrap();
        assert_eq!(
            servers(cluster),
            ["https://127.0.0.1:6443", "https://127.0.0.1:6444"]
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let kubeconfig = Kubeconfig::from_yaml(FILE).unwrap();
        let shown = redact(&kubeconfig).unwrap().to_string();
        assert!(
            !shown.contains("s3cret") && !shown.contains("Y2E="),
            "{shown}"
        );
        assert!(shown.contains("REDACTED") && shown.contains("\"username\":\"me\""));
    }

    #[test]
    fn a_wrong_context_gets_a_suggestion() {
        let kubeconfig = Kubeconfig::from_yaml(FILE).unwrap();
        assert_eq!(
            context(&kubeconfig, Some("hmoe")).unwrap_err().to_string(),
            "the kubeconfig has no context \"hmoe\"; did you mean \"home\"?"
        );
    }

    #[test]
    fn the_first_file_that_exists_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment::default().with("HOME", home.path());
        assert!(matches!(
            locate(None, &environment),
            Err(KubeconfigError::Missing(looked)) if looked.len() == 2
        ));
        let up = home.path().join(".local/share/hive/up/kubeconfig");
        fs::create_dir_all(up.parent().unwrap()).unwrap();
        fs::write(&up, FILE).unwrap();
        assert_eq!(
            locate(None, &environment).unwrap(),
            std::slice::from_ref(&up)
        );
        let own = home.path().join(".kube/config");
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::write(&own, FILE).unwrap();
        assert_eq!(locate(None, &environment).unwrap(), [own]);
        let listed = environment.with("KUBECONFIG", format!("/does/not/exist:{}", up.display()));
        assert_eq!(locate(None, &listed).unwrap(), [up]);
    }

    #[test]
    fn a_rewritten_file_keeps_what_it_held_and_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, FILE).unwrap();
        let mut kubeconfig = Kubeconfig::read_from(&path).unwrap();
        kubeconfig.current_context = Some("other".into());
        write(&path, &kubeconfig).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for kept in [
            "s3cret",
            "hive.dev/servers",
            "https://127.0.0.1:6444",
            "current-context: other",
        ] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
