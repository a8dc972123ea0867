//! The command line of a controller.

mod addresses;
mod audit;
mod disk;
mod oidc;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hive_identity::JoinToken;

use crate::reconcile::compile::child::CompileWorkerArgs;
use crate::tunnels::providers::hold::HoldArgs;

pub use addresses::Addresses;
pub use audit::AuditArgs;
pub use disk::{
    DataDir, EncryptionAction, EncryptionStatusArgs, GenerateKeyArgs, KeyFileArgs, NewDiskArgs,
    data_home,
};
pub use oidc::OidcArgs;
pub use run::{ProviderArgs, RunArgs, TlsPort};

/// One of the controllers that keep a swarm's state and give its agents their work.
#[derive(Debug, Parser)]
#[command(name = "hive-controller", version)]
pub struct ControllerCommand {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a new swarm: its certificate authority, and this machine as its first controller
    Init(InitArgs),
    /// Make this machine another controller of a swarm
    Join(JoinArgs),
    /// Run the controller that `init`, `join` or `restore` made here
    Run(Box<RunArgs>),
    /// Give up this controller's place in the swarm for good, and stop it
    Leave(LeaveArgs),
    /// Go on alone with this controller after a majority was lost for good
    Recover(RecoverArgs),
    /// Make the first controller of a swarm from a backup (`hivectl backup`)
    Restore(RestoreArgs),
    /// Measure whether a disk is fast enough for a controller
    CheckDisk(CheckDiskArgs),
    /// Compile one component for one kind of node: what a running controller starts for each
    #[command(hide = true)]
    CompileWorker(CompileWorkerArgs),
    /// Become a program that ends with its controller: what a running controller starts for tunnels
    #[command(hide = true)]
    Hold(HoldArgs),
    /// See and make the keys with which a controller's disk is encrypted
    #[command(subcommand)]
    Encryption(EncryptionAction),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub disk: NewDiskArgs,
    /// Name of the swarm: lower-case letters, digits, "-" and "."
    #[arg(long, default_value = "hive")]
    pub cluster: String,
    /// Functions without a host of their own answer at NAME.NAMESPACE.DOMAIN
    #[arg(long, default_value = "localhost")]
    pub domain: String,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub disk: NewDiskArgs,
    /// A token made with `hivectl token create --kind controller-join`
    #[arg(long, env = "HIVE_TOKEN", hide_env_values = true)]
    pub token: JoinToken,
    /// Link addresses of controllers that are there already, HOST:PORT
    #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT")]
    pub controllers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub encryption: KeyFileArgs,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    #[command(flatten)]
    pub data: DataDir,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub disk: NewDiskArgs,
    /// The passphrase that it is sealed with
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckDiskArgs {
    /// A directory on the disk
    pub dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        ControllerCommand::command().debug_assert();
    }
}
