//! `hive controller restore`: the first controller of a swarm that is made from a backup.
//!
//! The swarm keeps its name, its CA, its nodes and their work; it begins a new epoch with one
//! controller, which others join. The directory becomes a controller's with the last file written.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, bail};
use hive_identity::store::save_private;
use hive_identity::{ApiToken, BackupHeader, CertificateAuthority, DeviceKey};

use crate::access::tokens::{self, Role, TokenKind};
use crate::artifacts::ArtifactFiles;
use crate::backup;
use crate::config::RestoreArgs;
use crate::data_dir::{DataDirectory, SelfRecord};
use crate::identity_files::IdentityFiles;
use crate::kubeconfig::kubeconfig;
use crate::state::Command;
use crate::store::offline;

const READ_BYTES: usize = 256 * 1024;

/// What was made.
pub struct Restored {
    pub header: BackupHeader,
    pub id: u64,
    pub epoch: u64,
    pub kubeconfig: PathBuf,
    pub member: crate::state::Member,
    /// Where the keys of the disk are.
    pub key_file: Option<PathBuf>,
    /// Artifacts that are registered and not in the backup.
    pub missing: u64,
}

/// Blocks while it reads the backup, twice: nothing is made from one that is damaged.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<Restored> {
    let passphrase = match &args.passphrase_file {
        None => None,
        Some(path) => {
            let text = std::fs::read(path)
                .with_context(|| format!("cannot read the passphrase in {}", path.display()))?;
            Some(text.trim_ascii_end().to_owned())
        }
    };
    let open = || -> anyhow::Result<BufReader<File>> {
        let file = File::open(&args.from)
            .with_context(|| format!("cannot open {}", args.from.display()))?;
        Ok(BufReader::with_capacity(READ_BYTES, file))
    };
    let about = || format!("cannot restore from {}", args.from.display());
    backup::read(open()?, passphrase.as_deref(), |_, _| Ok(())).with_context(about)?;

    let dir = DataDirectory::create(&args.data.data_dir)?;
    let files = ArtifactFiles::open(&dir.artifacts())
        .with_context(|| format!("cannot open {}", dir.artifacts().display()))?;
    let content = backup::read(open()?, passphrase.as_deref(), |digest, bytes| {
        files.keep(&digest, bytes)
    })
    .with_context(about)?;
    let authority =
        CertificateAuthority::load(&content.identity.ca_certificate, &content.identity.ca_key)?;
    let member = args.addresses.member();
    let after = content.state.revision();
    let told = member.known_at(content.state.level());
    let (id, mut state) = content.state.begin_anew(told.clone());
    // Whoever restores may have lost their token with everything else.
    let token = ApiToken::generate();
    let (key, body) =
        tokens::token_object(&token.secret, TokenKind::Api, Some(Role::Admin), None, None);
    if let Err(error) = state.apply(Command::Create {
        key,
        body: body.into(),
    }) {
        bail!("cannot make a token for the administrator: {error}");
    }
    let keys = args.disk.keys(&args.data.data_dir)?;
    let identity = IdentityFiles::create(dir.identity(), keys.clone())
        .with_context(|| format!("cannot create {}", dir.identity().display()))?;
    identity.save_device_key(&DeviceKey::generate())?;
    identity.save_authority(&authority)?;
    offline::found(&dir.raft(), id, &told, after, &state, &keys)?;
    let config = kubeconfig(
        authority.certificate(),
        std::slice::from_ref(&member.api),
        "admin",
        &token.to_string(),
    );
    save_private(&dir.kubeconfig(), &serde_json::to_vec_pretty(&config)?)?;
    dir.save(&SelfRecord {
        raft_id: id,
        cluster: content.header.cluster.clone(),
        member: member.clone(),
        ingress_tls_port: None,
        raft_dir: None,
        encryption_key_file: keys.path(),
    })?;
    Ok(Restored {
        missing: content
            .header
            .registered_artifacts
            .saturating_sub(content.header.artifacts),
        header: content.header,
        id,
        epoch: state.epoch(),
        kubeconfig: dir.kubeconfig(),
        member,
        key_file: keys.path(),
    })
}
