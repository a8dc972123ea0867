//! A Tor network on this machine: C tor's authorities and relays, of Debian's package, on loopback.
//!
//! What C tor derives for such networks from how often authorities vote, Arti is told.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hive_e2e::wait::holds;
use tempfile::TempDir;
use tokio::process::Child;

use super::consensus;
use super::relay::{self, PERIOD, Relay, make_dir};
use crate::debian;

/// The fewest of which two agree when one is slow.
const AUTHORITIES: u16 = 3;

/// Beside the authorities, which are relays too. A way to a service has six of them, and each side keeps to four for its
/// second: with as many again, there is always another one.
const RELAYS: u16 = 7;

/// Of each program's log, what is shown when a test failed.
const LAST_LINES: usize = 8;

/// Ends when it is dropped, with all its programs.
#[derive(Debug)]
pub struct Network {
    tor: PathBuf,
    gencert: PathBuf,
    /// Lines of a configuration that name the authorities.
    authorities: String,
    relays: Vec<Relay>,
    running: Vec<Child>,
    dir: TempDir,
}

/// Somebody who uses the network.
#[derive(Debug)]
pub struct Client {
    pub socks: u16,
    log: PathBuf,
    _tor: Child,
}

impl Network {
    /// One that is not started. `None` where there is no tor, which is said.
    pub async fn find(test: &str) -> Option<Self> {
        Some(Self {
            tor: debian::program(test, &["tor"], "tor").await?,
            gencert: debian::program(test, &["tor-gencert"], "tor").await?,
            authorities: String::new(),
            relays: Vec::new(),
            running: Vec::new(),
            dir: tempfile::tempdir().unwrap(),
        })
    }

    /// Where Arti reads what it needs to know of it, once it is started.
    pub fn arti(&self) -> PathBuf {
        self.dir.path().join("arti.toml")
    }

    /// Starts it on ports that nobody else has.
    pub async fn start(&mut self, mut take_port: impl FnMut() -> u16) {
        for number in 0..AUTHORITIES + RELAYS {
            let name = format!("relay{number}");
            let relay = Relay {
                dir: self.dir.path().join(&name),
                name,
                port: take_port(),
                directory: (number < AUTHORITIES).then(&mut take_port),
            };
            relay.make(&self.tor, &self.gencert).await;
            self.relays.push(relay);
        }
        let bandwidths = self.dir.path().join("bandwidths");
        fs::write(&bandwidths, measured(&self.relays)).unwrap();
        fs::write(self.arti(), arti(&self.relays)).unwrap();
        self.authorities = self.relays.iter().filter_map(Relay::authority).collect();
        for relay in &self.relays {
            let child = relay.start(&self.tor, &self.authorities, &bandwidths);
            self.running.push(child);
        }
    }

    /// Whether the authorities agree on all that Arti needs; what they agree on otherwise.
    pub async fn agrees(&self) -> Result<(), String> {
        let directory = self.relays.iter().find_map(|relay| relay.directory);
        let text = consensus::read(directory.ok_or("there is no authority")?).await?;
        consensus::suffices(&text, self.relays.len())
    }

    /// A client, with the key to an onion service if it has one: its address without ".onion", and the key in base32.
    pub fn client(&self, name: &str, socks: u16, key: Option<(&str, &str)>) -> Client {
        let dir = self.dir.path().join(name);
        let keys = dir.join("keys-of-services");
        make_dir(&dir);
        make_dir(&keys);
        if let Some((address, key)) = key {
            let text = format!("{address}:descriptor:x25519:{key}");
            fs::write(keys.join("service.auth_private"), text).unwrap();
        }
        let text = format!(
            "{}SocksPort {}:{socks}\nClientOnionAuthDir {}\n{}",
            relay::common(&dir),
            Ipv4Addr::LOCALHOST,
            keys.display(),
            self.authorities,
        );
        let config = dir.join("torrc");
        fs::write(&config, text).unwrap();
        Client {
            socks,
            log: dir.join("log"),
            _tor: relay::start(&self.tor, &config),
        }
    }
}

impl Client {
    /// Whether it found its way into the network; what it said last otherwise.
    pub fn connected(&self) -> Result<(), String> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().last().unwrap_or_default();
        holds(said.contains("Bootstrapped 100%"), last)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in fs::read_dir(self.dir.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                tell(&program.path());
            }
        }
    }
}

/// The last lines of a program's log.
fn tell(dir: &Path) {
    let Ok(log) = fs::read_to_string(dir.join("log")) else {
        return;
    };
    let name = dir.file_name().unwrap_or_default().display();
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        eprintln!("  {name} | {line}");
    }
}

/// The bandwidths of relays, as if somebody had measured them: all the same. By what they say of themselves most have
/// none, and as soon as some have, ways are made of these only, which are too few.
fn measured(relays: &[Relay]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut text = format!("{}\n", now.as_secs());
    for relay in relays {
        text += &format!("node_id=${} bw=1000\n", relay.word("fingerprint"));
    }
    text
}

/// The network as Arti has to be told.
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
         hsdir_interval = {PERIOD}\n\
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
