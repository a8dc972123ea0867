//! `hivectl version`: of this program and of the server.

use clap::Args;
use serde_json::{Value, json};

use crate::cluster::Call;
use crate::failure::Failure;
use crate::output::Format;
use crate::session::Session;

#[derive(Debug, Args)]
pub struct Version {
    /// Don't ask the server
    #[arg(long)]
    client: bool,

    /// json or yaml
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

pub async fn run(version: Version, session: &mut Session<'_>) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let mut versions = json!({
        "clientVersion": {
            "version": own,
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    });
    // The client's version is worth printing even where no server answers.
    let server: Result<Option<Value>, Failure> = match version.client {
        true => Ok(None),
        false => match session.cluster().await {
            Ok(cluster) => cluster
                .json(&Call::get("/version"))
                .await
                .map(Some)
                .map_err(Failure::from),
            Err(failure) => Err(failure),
        },
    };
    if let Ok(Some(server)) = &server {
        versions["serverVersion"] = server.clone();
    }
    match &version.output {
        Some(format) => session.world.text(format.render(&versions, true)?)?,
        None => {
            session.world.line(format_args!("Client Version: {own}"))?;
            if let Some(server) = versions["serverVersion"]["gitVersion"].as_str() {
                session
                    .world
                    .line(format_args!("Server Version: {server}"))?;
            }
        }
    }
    server.map(drop)
}
