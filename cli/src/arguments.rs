//! What can be typed: the flags that every command takes, and the commands.
//!
//! clap turns arguments into these types. Nothing here acts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};
use hive_manifests::duration::GoDuration;

use crate::commands::Command;

#[derive(Debug, Parser)]
#[command(
    name = "hivectl",
    bin_name = "hivectl",
    version,
    about = "The command line of a Hive swarm",
    long_about = "The command line of a Hive swarm: kubectl's words, flags and output.\n\n\
        Start a swarm on this machine with `hive up`, then:\n\n  \
        hivectl apply -f function.yaml      make it so\n  \
        hivectl get functions,nodes         see what is\n  \
        hivectl logs -f hello               follow what a function says\n  \
        hivectl explain function.spec       what a manifest may contain",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub struct Arguments {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The namespace to act in; else the context's, else "default"
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// The kubeconfig file; else what $HIVE_SERVER, $HIVE_TOKEN and $HIVE_CA say, else $KUBECONFIG,
    /// ~/.kube/config, or the one `hive up` writes
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The cluster of the kubeconfig to use instead of the context's
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,

    /// Ask in the name of this user, where you may impersonate them
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,

    /// With --as: in the name of this group too; may be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_groups: Vec<String>,

    /// How long to wait for one answer, such as 30s; 0 waits forever. Watches, logs and uploads
    /// are not limited
    #[arg(long, global = true, value_name = "DURATION", default_value = "60s")]
    request_timeout: GoDuration,

    /// Print each request to standard error: method, address, status and time, no contents
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl Globals {
    pub fn request_timeout(&self) -> Option<Duration> {
        Some(self.request_timeout.0).filter(|timeout| !timeout.is_zero())
    }
}

/// Manifests named on the command line.
#[derive(Debug, Args)]
pub struct FileArguments {
    /// A manifest, a directory of manifests, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Also read the directories inside a directory given with -f
    #[arg(short = 'R', long, requires = "files")]
    pub recursive: bool,
}

/// The whole command line, for parsing and for completion scripts.
pub fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
