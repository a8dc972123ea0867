//! rathole as a contestant, in both of its encrypted modes: over Noise, and over TLS.
//!
//! It is set up as its documentation says (README.md and docs/transport.md of rathole), with nothing tuned: its
//! defaults set TCP_NODELAY and keep eight connections ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use hive_e2e::ports::free_row;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

use super::contestant::{Contestant, Role};
use crate::process::{self, Process};

/// The version that the bench was written for, which is the last that crates.io has.
const INSTALL: &str = "cargo install rathole@0.5.0, whose default features have Noise and TLS (apt-get install pkg-config libssl-dev; not --locked: its lock file names a crate that compilers of today refuse), and put it on PATH or name it in RATHOLE";

/// Of an archive that lives as long as the bench.
const PASSWORD: &str = "bench";

/// Those modes that can be had here, each with a server and a client of its own, that lead to a port of this
/// machine.
pub fn start(target: u16) -> anyhow::Result<Vec<Contestant>> {
    let program =
        std::env::var_os("RATHOLE").map_or_else(|| PathBuf::from("rathole"), PathBuf::from);
    // Also shows that it was built with Noise.
    let Ok(keys) = process::output(&program, &["--genkey"]) else {
        println!("SKIPPED: rathole is not installed ({INSTALL})");
        return Ok(Vec::new());
    };
    if let Ok(version) = process::output(&program, &["--version"]) {
        println!("{}", version.trim());
    }
    let port = free_row(4);
    let (dir, transports) = (tempfile::tempdir()?, noise(&keys)?);
    let ports = [port, port + 1];
    let mut contestants = vec![pair(&program, "noise", &transports, dir, ports, target)?];
    let dir = tempfile::tempdir()?;
    match tls(dir.path()) {
        Ok(transports) => {
            let ports = [port + 2, port + 3];
            contestants.push(pair(&program, "TLS", &transports, dir, ports, target)?);
        }
        Err(error) => {
            println!("SKIPPED: rathole over TLS: {error:#} (apt-get install openssl)");
        }
    }
    Ok(contestants)
}

/// How the two ends reach each other, as their configurations say it.
struct Transports {
    server: String,
    client: String,
}

/// A server and its client; ports for the two to meet, and for the server's clients.
fn pair(
    program: &Path,
    mode: &str,
    transports: &Transports,
    dir: TempDir,
    [link, public]: [u16; 2],
    target: u16,
) -> anyhow::Result<Contestant> {
    let public = SocketAddr::from(([127, 0, 0, 1], public));
    let server = format!(
        "[server]\nbind_addr = \"127.0.0.1:{link}\"\ndefault_token = \"bench\"\n\n{}\n[server.services.bench]\nbind_addr = \"{public}\"\n",
        transports.server
    );
    let client = format!(
        "[client]\nremote_addr = \"127.0.0.1:{link}\"\ndefault_token = \"bench\"\n\n{}\n[client.services.bench]\nlocal_addr = \"127.0.0.1:{target}\"\n",
        transports.client
    );
    let mut processes = Vec::new();
    for (file, text) in [("server.toml", server), ("client.toml", client)] {
        let path = dir.path().join(file);
        std::fs::write(&path, text)?;
        processes.push(Process::start(program, &[path.to_str().context("path")?])?);
    }
    Ok(Contestant::of_processes(
        &format!("rathole, {mode}"),
        Role::Peer,
        public,
        processes,
        Some(dir),
    ))
}

/// The server proves who it is by its key, as Hive's ends do by theirs.
fn noise(keys: &str) -> anyhow::Result<Transports> {
    let key = |name: &str| {
        let mut lines = keys.lines().skip_while(|line| line.trim() != name);
        let key = lines.nth(1).map(str::trim);
        key.with_context(|| format!("`rathole --genkey` prints no {name:?}"))
    };
    let (private, public) = (key("Private Key:")?, key("Public Key:")?);
    let transport = |side: &str, name: &str, key: &str| {
        format!(
            "[{side}.transport]\ntype = \"noise\"\n\n[{side}.transport.noise]\n{name} = \"{key}\"\n"
        )
    };
    Ok(Transports {
        server: transport("server", "local_private_key", private),
        client: transport("client", "remote_public_key", public),
    })
}

/// With a CA of its own; the server's key comes in an archive, which OpenSSL's program makes.
fn tls(dir: &Path) -> anyhow::Result<Transports> {
    certificates(dir)?;
    let file = |name: &str| dir.join(name).display().to_string();
    let (identity, ca) = (file("identity.pfx"), file("ca.pem"));
    let password = format!("pass:{PASSWORD}");
    process::output(
        Path::new("openssl"),
        &[
            "pkcs12",
            "-export",
            "-inkey",
            &file("server.key"),
            "-in",
            &file("server.pem"),
            "-certfile",
            &ca,
            "-passout",
            &password,
            "-out",
            &identity,
        ],
    )?;
    Ok(Transports {
        server: format!(
            "[server.transport]\ntype = \"tls\"\n\n[server.transport.tls]\npkcs12 = \"{identity}\"\npkcs12_password = \"{PASSWORD}\"\n"
        ),
        client: format!(
            "[client.transport]\ntype = \"tls\"\n\n[client.transport.tls]\ntrusted_root = \"{ca}\"\nhostname = \"localhost\"\n"
        ),
    })
}

fn certificates(dir: &Path) -> anyhow::Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // Another name than the server's: OpenSSL takes one for the other else.
    params.distinguished_name.push(DnType::CommonName, "bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.pem"), params.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    std::fs::write(dir.join("server.pem"), certificate.pem())?;
    std::fs::write(dir.join("server.key"), key.serialize_pem())?;
    Ok(())
}
