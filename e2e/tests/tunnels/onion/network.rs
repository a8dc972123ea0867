//! A Tor network on this machine: C tor's authorities and relays, of Debian's package, on loopback.
//!
//! Authorities vote every 20 s, and call every relay good for everything at once. What C tor derives from that for such
//! networks, Arti is told.

use std::fs::{self, DirBuilder};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hive_e2e::ports::free_row;
use hive_e2e::wait::{holds, until};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::debian;

/// The fewest of which two agree when one is slow.
const AUTHORITIES: u16 = 3;

/// Beside the authorities, which are relays too: a circuit to an onion service has six of them.
const RELAYS: u16 = 5;

/// Clients that a test may start.
const CLIENTS: u16 = 2;

/// A few votes, and what clients learn from them.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Stands in a configuration until the authorities' keys are known: without one, C tor takes none of another network.
const NO_AUTHORITY: &str = "none orport=1 no-v2 v3ident=0000000000000000000000000000000000000000 127.0.0.1:1 \
                            0000000000000000000000000000000000000000";

/// Ends when it is dropped, with all its programs.
#[derive(Debug)]
pub struct Network {
    tor: PathBuf,
    /// Lines of a configuration that name the authorities.
    authorities: String,
    next_port: u16,
    _relays: Vec<Child>,
    dir: TempDir,
}

/// Somebody who uses the network.
#[derive(Debug)]
pub struct Client {
    pub socks: u16,
    _tor: Child,
}

#[derive(Debug)]
struct Relay {
    name: String,
    dir: PathBuf,
    port: u16,
    /// Of an authority: where it gives out the directory.
    directory: Option<u16>,
}

impl Network {
    /// `None` where there is no tor, which is said.
    pub async fn start(test: &str) -> Option<Self> {
        let tor = debian::program(test, &["tor"], "tor").await?;
        let gencert = debian::program(test, &["tor-gencert"], "tor").await?;
        let dir = tempfile::tempdir().unwrap();
        let mut next_port = free_row(2 * AUTHORITIES + RELAYS + CLIENTS);
        let mut take_port = || {
            next_port += 1;
            next_port - 1
        };
        let mut relays = Vec::new();
        for number in 0..AUTHORITIES + RELAYS {
            let name = format!("relay{number}");
            relays.push(Relay {
                dir: dir.path().join(&name),
                name,
                port: take_port(),
                directory: (number < AUTHORITIES).then(&mut take_port),
            });
        }
        for relay in &relays {
            relay.make(&tor, &gencert).await;
        }
        let authorities = relays.iter().filter_map(Relay::authority);
        let authorities: String = authorities.collect();
        fs::write(dir.path().join("arti.toml"), arti(&relays)).unwrap();
        let mut running = Vec::new();
        for relay in &relays {
            let config = relay.dir.join("torrc");
            let known = fs::read_to_string(&config).unwrap();
            fs::write(&config, known + &authorities).unwrap();
            running.push(start(&tor, &config));
        }
        Some(Self {
            tor,
            authorities,
            next_port,
            _relays: running,
            dir,
        })
    }

    /// What Arti needs to know of it.
    pub fn arti(&self) -> String {
        self.dir.path().join("arti.toml").display().to_string()
    }

    /// A client that found its way, with the key to an onion service if it has one: its address without ".onion", and
    /// the key in base32.
    pub async fn client(&mut self, name: &str, key: Option<(&str, &str)>) -> Client {
        let dir = self.dir.path().join(name);
        let keys = dir.join("keys-of-services");
        make_dir(&dir);
        make_dir(&keys);
        if let Some((address, key)) = key {
            let text = format!("{address}:descriptor:x25519:{key}");
            fs::write(keys.join("service.auth_private"), text).unwrap();
        }
        let socks = self.next_port;
        self.next_port += 1;
        let text = format!(
            "{}SocksPort {}:{socks}\nClientOnionAuthDir {}\n{}",
            common(&dir),
            Ipv4Addr::LOCALHOST,
            keys.display(),
            self.authorities,
        );
        let config = dir.join("torrc");
        fs::write(&config, text).unwrap();
        let tor = start(&self.tor, &config);
        let log = dir.join("log");
        until(
            &format!("{name} is connected to the network"),
            PATIENCE,
            async || {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                holds(said.contains("Bootstrapped 100%"), last)
            },
        )
        .await;
        Client { socks, _tor: tor }
    }
}

impl Relay {
    /// Its configuration, but for the authorities, and its keys.
    async fn make(&self, tor: &Path, gencert: &Path) {
        make_dir(&self.dir);
        let keys = self.dir.join("keys");
        make_dir(&keys);
        let mut text = common(&self.dir);
        text += &format!(
            "Nickname {}\nAddress 127.0.0.1\nORPort 127.0.0.1:{}\nSocksPort 0\nAssumeReachable 1\n\
             ExitRelay 1\nExitPolicy accept 127.0.0.0/8:*\nExitPolicy reject *:*\n",
            self.name, self.port
        );
        if let Some(directory) = self.directory {
            text += &format!("DirPort 127.0.0.1:{directory}\n");
            text += "ContactInfo test@example.org\n\
                     AuthoritativeDirectory 1\n\
                     V3AuthoritativeDirectory 1\n\
                     TestingV3AuthInitialVotingInterval 20\n\
                     TestingV3AuthInitialVoteDelay 4\n\
                     TestingV3AuthInitialDistDelay 4\n\
                     V3AuthVotingInterval 20\n\
                     V3AuthVoteDelay 4\n\
                     V3AuthDistDelay 4\n\
                     V3AuthNIntervalsValid 2\n\
                     TestingDirAuthVoteExit *\n\
                     TestingDirAuthVoteGuard *\n\
                     TestingDirAuthVoteHSDir *\n";
            let mut command = Command::new(gencert);
            command
                .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"])
                .args(["-a", &format!("127.0.0.1:{directory}")])
                .arg("-i")
                .arg(keys.join("authority_identity_key"))
                .arg("-s")
                .arg(keys.join("authority_signing_key"))
                .arg("-c")
                .arg(keys.join("authority_certificate"));
            run(command, "passphrase\n").await;
        }
        let config = self.dir.join("torrc");
        fs::write(&config, text).unwrap();
        let mut command = command(tor, &config);
        command.args(["--DirAuthority", NO_AUTHORITY, "--list-fingerprint"]);
        run(command, "").await;
    }

    /// The last word of one of its files.
    fn word(&self, file: &str) -> String {
        let text = fs::read_to_string(self.dir.join(file)).unwrap();
        text.split_whitespace().last().unwrap().to_owned()
    }

    /// The name of an authority's key for votes.
    fn identity(&self) -> String {
        let text = fs::read_to_string(self.dir.join("keys/authority_certificate")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("fingerprint "));
        line.unwrap().to_owned()
    }

    fn authority(&self) -> Option<String> {
        let directory = self.directory?;
        Some(format!(
            "DirAuthority {} orport={} no-v2 v3ident={} 127.0.0.1:{directory} {}\n",
            self.name,
            self.port,
            self.identity(),
            self.word("fingerprint"),
        ))
    }
}

/// The network as Arti has to be told. A period of the directory of services is as long as 24 votes, in minutes.
fn arti(relays: &[Relay]) -> String {
    let authorities = || relays.iter().filter(|relay| relay.directory.is_some());
    let identities: Vec<_> = authorities()
        .map(|it| format!("{:?}", it.identity()))
        .collect();
    let places: Vec<_> = authorities()
        .filter_map(|it| Some(format!("[\"127.0.0.1:{}\"]", it.directory?)))
        .collect();
    let (identities, places) = (identities.join(", "), places.join(", "));
    let mut text = format!(
        "[path_rules]\n\
         ipv4_subnet_family_prefix = 33\n\
         ipv6_subnet_family_prefix = 129\n\
         [override_net_params]\n\
         hsdir_interval = 8\n\
         [tor_network.authorities]\n\
         v3idents = [{identities}]\n\
         uploads = [{places}]\n\
         downloads = [{places}]\n\
         votes = [{places}]\n"
    );
    for relay in authorities() {
        text += &format!(
            "[[tor_network.fallback_caches]]\n\
             rsa_identity = \"{}\"\n\
             ed_identity = \"{}\"\n\
             orports = [\"127.0.0.1:{}\"]\n",
            relay.word("fingerprint"),
            relay.word("fingerprint-ed25519"),
            relay.port,
        );
    }
    text
}

/// What holds for every program of the network.
fn common(dir: &Path) -> String {
    format!(
        "TestingTorNetwork 1\nDataDirectory {}\nLog notice file {}\n",
        dir.display(),
        dir.join("log").display()
    )
}

/// As tor wants its directories.
fn make_dir(dir: &Path) {
    DirBuilder::new().mode(0o700).create(dir).unwrap();
}

fn command(tor: &Path, config: &Path) -> Command {
    let mut command = Command::new(tor);
    command
        .args(["--defaults-torrc", "/dev/null", "--quiet", "-f"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

fn start(tor: &Path, config: &Path) -> Child {
    command(tor, config).spawn().unwrap()
}

/// Runs a program to its end.
async fn run(mut command: Command, input: &str) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
