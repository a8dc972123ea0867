//! Where a controller keeps its data, and how that is encrypted.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// Where the controller keeps what it must not lose
    #[arg(long, env = "HIVE_CONTROLLER_DATA_DIR", default_value_os_t = default_data_dir())]
    pub data_dir: PathBuf,
}

fn default_data_dir() -> PathBuf {
    data_home().join("hive/controller")
}

/// Where a user's data belongs (XDG base directory specification: a relative path there is ignored).
pub fn data_home() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// Where the keys of a controller's disk are.
#[derive(Debug, Clone, Args)]
pub struct KeyFileArgs {
    /// File with the keys of this controller's disk, one a line: the first seals, all of them open
    /// [default: the one that `init`, `join`, `restore` or an earlier `run` noted]
    #[arg(long, env = "HIVE_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    pub encryption_key_file: Option<PathBuf>,
}

/// How the disk of a new controller is encrypted.
#[derive(Debug, Clone, Args)]
pub struct NewDiskArgs {
    /// File with the keys of this controller's disk, outside of the data directory; made if it does
    /// not exist [default: beside the data directory, named as it with ".keys" at the end]
    #[arg(long, env = "HIVE_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    pub encryption_key_file: Option<PathBuf>,
    /// Leave the swarm's secrets readable to whoever gets hold of this disk
    #[arg(long, conflicts_with = "encryption_key_file")]
    pub no_encryption: bool,
}

#[derive(Debug, Subcommand)]
pub enum EncryptionAction {
    /// Show which keys are in use, and which can be removed from the key file
    Status(EncryptionStatusArgs),
    /// Make a key: print it, or put it before the others of a key file
    GenerateKey(GenerateKeyArgs),
}

#[derive(Debug, Args)]
pub struct EncryptionStatusArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
}

#[derive(Debug, Args)]
pub struct GenerateKeyArgs {
    /// Put it first in this key file, which is made if it does not exist. The controller uses it from
    /// its next start or SIGHUP on
    #[arg(long, value_name = "FILE")]
    pub first_in: Option<PathBuf>,
}
