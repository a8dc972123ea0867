//! What a person can choose about an agent, on the command line or in the environment.
//! Checked here, before anything is begun, so that a typing error never ends as a node half joined.

mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hive_identity::JoinToken;

use crate::os;
use crate::tunnels::TunnelTargets;
use words::{bytes, duration, endpoint, label, listen, millis, node_name, sanitised};

/// Long enough that callers who come each few minutes never wait, short enough that a small board has its
/// memory for the functions that are in use.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// A write of what functions used costs the flash some 32 KiB: 45 MiB a busy day, where ten seconds would
/// cost six times as much.
const METER_INTERVAL: Duration = Duration::from_secs(60);

/// One node's agent: joins the swarm once with a token, then runs what the swarm wants here.
#[derive(Args, Clone, Debug, Default)]
pub struct AgentArgs {
    /// Directory of keys, ledger and artifacts [default: $XDG_DATA_HOME/hive/agent]
    #[arg(long, value_name = "DIR", env = "HIVE_AGENT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Controllers to join, as host:port; needed the first time only
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "HIVE_CONTROLLERS",
        value_delimiter = ',',
        value_parser = endpoint
    )]
    pub controllers: Vec<String>,

    /// Join token; needed the first time only
    #[arg(
        long,
        value_name = "TOKEN",
        env = "HIVE_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    pub token: Option<String>,

    /// File that holds the join token ("-": standard input): other processes can't read it there
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Name of the node, unique in the swarm [default: the machine's host name]
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub name: Option<String>,

    /// Label of the node, as in disk=ssd; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Address on which functions are served to the local network over HTTP, or "none"
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:8070",
        env = "HIVE_LISTEN",
        value_parser = listen
    )]
    pub listen: Listen,

    /// Where tunnels may lead from this node: networks, with or without a port, as in
    /// 192.168.1.0/24,10.0.0.5:22,[fd00::/8]:80; or "all", or "none". Link-local addresses and those at which
    /// clouds keep credentials only where they are named
    #[arg(
        long,
        value_name = "NETWORKS",
        default_value = TunnelTargets::DEFAULT,
        env = "HIVE_TUNNEL_TARGETS"
    )]
    pub tunnel_targets: TunnelTargets,

    /// Memory to offer, as in 512Mi [default: all of it]
    #[arg(long, value_name = "QUANTITY", value_parser = bytes)]
    pub memory: Option<u64>,

    /// Processors to offer, as in 2 or 1500m [default: all of them]
    #[arg(long, value_name = "QUANTITY", value_parser = millis)]
    pub cpu: Option<u32>,

    /// Whether what this machine sends and receives is paid for: functions then go to others first. "auto"
    /// knows the networks of phones and modems, where the system tells
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        env = "HIVE_METERED"
    )]
    pub metered: Metered,

    /// How long a function that nobody asks for anything keeps its code in memory, as in 30s or 1h; the next
    /// request maps it again, which takes a millisecond for each 2 MB [default: 5m]
    #[arg(long, value_name = "TIME", env = "HIVE_IDLE_AFTER", value_parser = duration)]
    pub idle_after: Option<Duration>,

    /// How long until what functions used is written down again; for tests
    #[arg(long, hide = true, value_name = "TIME", value_parser = duration)]
    pub meter_interval: Option<Duration>,

    /// What to log, as in info or hive_agent=debug
    #[arg(long, value_name = "FILTER", default_value = "info", env = "HIVE_LOG")]
    pub log: String,
}

/// Where functions are served locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    None,
    On(SocketAddr),
}

/// Whether a person said that the link is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Metered {
    Yes,
    No,
    #[default]
    Auto,
}

/// Loopback: to offer functions to the network is a choice that a person makes.
impl Default for Listen {
    fn default() -> Self {
        Self::On(SocketAddr::from(([127, 0, 0, 1], 8070)))
    }
}

/// The arguments, with their defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub controllers: Vec<String>,
    pub token: Option<JoinToken>,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub listen: Listen,
    pub tunnel_targets: TunnelTargets,
    pub memory: Option<u64>,
    pub cpu_millis: Option<u32>,
    pub metered: Metered,
    pub idle_after: Duration,
    /// Between two writes of what functions used.
    pub meter_interval: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no place for the agent's data: set --data-dir (neither XDG_DATA_HOME nor HOME is set)"
    )]
    DataDir,
    #[error("the join token cannot be used")]
    Token(#[source] hive_identity::TokenError),
    #[error("cannot read the join token from {}", .path.display())]
    TokenFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the host name {0:?} makes no node name: set --name")]
    HostName(String),
}

impl AgentArgs {
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let token = match (self.token, &self.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => Some(read_token(path)?),
            (None, None) => None,
        };
        let name = match self.name {
            Some(name) => name,
            None => {
                let host = os::hostname();
                sanitised(&host).ok_or(ConfigError::HostName(host))?
            }
        };
        Ok(Config {
            data_dir: match self.data_dir {
                Some(dir) => dir,
                None => default_data_dir(|name| std::env::var_os(name).map(PathBuf::from))
                    .ok_or(ConfigError::DataDir)?,
            },
            controllers: self.controllers,
            token: token
                .map(|token| token.parse().map_err(ConfigError::Token))
                .transpose()?,
            name,
            labels: self.labels.into_iter().collect(),
            listen: self.listen,
            tunnel_targets: self.tunnel_targets,
            memory: self.memory,
            cpu_millis: self.cpu,
            metered: self.metered,
            idle_after: self.idle_after.unwrap_or(IDLE_AFTER),
            meter_interval: self.meter_interval.unwrap_or(METER_INTERVAL),
        })
    }
}

fn read_token(path: &Path) -> Result<String, ConfigError> {
    let read = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|source| ConfigError::TokenFile {
        path: path.into(),
        source,
    })
}

/// As the XDG base directory specification says; a relative path there is to be ignored.
fn default_data_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let base = variable("XDG_DATA_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join("hive/agent"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: AgentArgs,
    }

    fn parse(args: &[&str]) -> Result<Config, String> {
        let args = ["hive-agent", "--data-dir", "/d"].iter().chain(args);
        let command = Command::try_parse_from(args).map_err(|error| error.to_string())?;
        command.args.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_become_a_configuration() {
        let token = JoinToken::generate([7; 32].into()).to_string();
        let config = parse(&[
            "--controllers",
            "a:1,b:2",
            "--controllers",
            "[::1]:3",
            "--token",
            &token,
            "--label",
            "disk=ssd",
            "--listen",
            "none",
            "--memory",
            "512Mi",
            "--cpu",
            "1.5",
            "--metered=no",
            "--idle-after=2m",
            "--tunnel-targets=10.0.0.0/8,10.0.0.5:22",
        ])
        .unwrap();
        assert_eq!(config.controllers, ["a:1", "b:2", "[::1]:3"]);
        assert_eq!(config.token.unwrap().to_string(), token);
        assert_eq!(config.labels["disk"], "ssd");
        assert_eq!(config.listen, Listen::None);
        assert_eq!(config.memory, Some(512 << 20));
        assert_eq!(config.cpu_millis, Some(1500));
        assert_eq!(config.metered, Metered::No);
        assert_eq!(config.idle_after, Duration::from_secs(120));
        let targets = "10.0.0.0/8,10.0.0.5:22".parse().unwrap();
        assert_eq!(config.tunnel_targets, targets);
        assert_eq!(parse(&[]).unwrap().tunnel_targets, TunnelTargets::default());
        assert_eq!(parse(&[]).unwrap().idle_after, IDLE_AFTER);
        assert_eq!(parse(&[]).unwrap().metered, Metered::Auto);
        assert_eq!(
            parse(&[]).unwrap().listen,
            Listen::default(),
            "the flag's default is the type's"
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (args, hint) in [
            (&["--controllers", "a"][..], "host:port"),
            (&["--controllers", "a:0"], "host:port"),
            (&["--token", "hivetok.x"], "join token"),
            (&["--listen", "8070"], "address:port"),
            (&["--label", "disk"], "key=value"),
            (&["--memory", "lots"], "512Mi"),
            (&["--cpu=-1"], "1500m"),
            (&["--metered=often"], "auto"),
            (&["--idle-after=soon"], "5m"),
            (&["--idle-after=0s"], "5m"),
            (&["--tunnel-targets=lan"], "10.0.0.0/8"),
            (&["--name", "My Phone"], "node name"),
            (&["--token-file", "/does/not/exist"], "/does/not/exist"),
        ] {
            let message = parse(args).unwrap_err();
            assert!(message.contains(hint), "{args:?}: {message}");
        }
    }

    #[test]
    fn a_token_in_a_file_may_end_in_a_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = JoinToken::generate([7; 32].into()).to_string();
        std::fs::write(&path, format!("{token}\n")).unwrap();
        let config = parse(&["--token-file", path.to_str().unwrap()]).unwrap();
        assert_eq!(config.token.unwrap().to_string(), token);
    }

    #[test]
    fn data_goes_where_the_platform_keeps_it() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            default_data_dir(|name| match name {
                "XDG_DATA_HOME" => xdg.map(PathBuf::from),
                _ => home.map(PathBuf::from),
            })
        };
        assert_eq!(with(Some("/x"), None), Some("/x/hive/agent".into()));
        let in_home = Some("/h/.local/share/hive/agent".into());
        assert_eq!(with(None, Some("/h")), in_home);
        assert_eq!(with(Some("relative"), Some("/h")), in_home);
        assert_eq!(with(None, None), None);
    }
}
