//! `hivectl completion`: the script that makes a shell complete commands and flags.

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(hivectl completion bash)
  hivectl completion zsh > ~/.zfunc/_hivectl
  hivectl completion fish > ~/.config/fish/completions/hivectl.fish")]
pub struct Completion {
    /// Your shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(completion: Completion, session: &mut Session<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        completion.shell,
        &mut crate::arguments::command(),
        "hivectl",
        &mut script,
    );
    session.world.out.write_all(&script)?;
    session.world.out.flush()?;
    Ok(())
}
