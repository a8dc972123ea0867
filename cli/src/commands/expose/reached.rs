//! Following a tunnel that was just declared: until it has an address, until somebody was there.
//!
//! What the controllers say of it flows in, by watch; what is in the way is told meanwhile, on
//! standard error.

use std::time::{Duration, Instant};

use hive_manifests::Resource;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::object;
use crate::progress::{self, Progress};
use crate::session::Session;
use crate::table::harmless;
use crate::watch::{self, Objects, Scope};

/// Often enough for a thing that turns.
const TURN: Duration = Duration::from_millis(100);

fn scope(tunnel: &Value) -> Scope {
    Scope::one(
        Resource::Tunnel,
        object::namespace(tunnel),
        object::name(tunnel),
    )
}

/// The tunnel as it was declared, or later: a controller that lags behind may tell of an older one.
fn current<'a>(declared: &Value, objects: &'a Objects) -> Option<&'a Value> {
    let generation = |tunnel: &Value| tunnel["metadata"]["generation"].as_i64();
    let tunnel = objects.values().next()?;
    (generation(tunnel) >= generation(declared)).then_some(tunnel)
}

/// Where a tunnel is reached, as its status says.
pub fn addresses(tunnel: &Value) -> Vec<String> {
    let told = tunnel["status"]["addresses"].as_array();
    told.into_iter()
        .flatten()
        .filter_map(|address| Some(address.as_str()?.to_owned()))
        .collect()
}

/// The tunnel once its status says where it is reached, or that it is nowhere; nothing if nobody has said so by the
/// deadline. Where a provider brings its connections the address may come later.
pub async fn told(
    tunnel: &Value,
    deadline: Instant,
    cluster: &Cluster,
) -> Result<Option<Value>, Failure> {
    let told = watch::until(cluster, &scope(tunnel), Some(deadline), |objects| {
        let tunnel = current(tunnel, objects)?;
        let provider = &tunnel["spec"]["provider"];
        let is_hives = provider.as_str().is_none_or(|it| it == "Hive");
        let is_nowhere = is_hives && tunnel["status"]["conditions"].is_array();
        let is_told = object::is_observed(tunnel) && (is_nowhere || !addresses(tunnel).is_empty());
        is_told.then(|| tunnel.clone())
    })
    .await?;
    Ok(told)
}

/// Waits until a tunnel was reached through its address; how that went, in one line.
pub async fn wait(
    tunnel: &Value,
    deadline: Option<Instant>,
    cluster: &Cluster,
    session: &mut Session<'_>,
) -> Result<String, Failure> {
    let name = object::name(tunnel);
    let world = &mut *session.world;
    let turning = world.interactive.then(ProgressBar::new_spinner);
    if let Some(turning) = &turning {
        turning.enable_steady_tick(TURN);
    }
    let (mut said, mut output, mut seen) = (String::new(), Ok(()), false);
    let ended = watch::until(cluster, &scope(tunnel), deadline, |objects| {
        let Some(now) = current(tunnel, objects) else {
            // Deleted, if it was there.
            return (seen && objects.is_empty()).then_some(None);
        };
        seen = true;
        if let Progress::Waiting(why) = progress::of_tunnel(now) {
            let why = harmless(&why);
            if why != said {
                match &turning {
                    Some(turning) => turning.set_message(format!("waiting: {why}")),
                    None => output = world.note(format_args!("waiting for tunnel {name:?}: {why}")),
                }
                said = why;
            }
            return output.is_err().then_some(None);
        }
        Some(Some(now.clone()))
    })
    .await;
    if let Some(turning) = turning {
        turning.finish_and_clear();
    }
    let ended = ended?;
    output?;
    match ended {
        Some(Some(ready)) => {
            let condition = object::condition(&ready, "Ready").unwrap_or(&Value::Null);
            Ok(format!(
                "{} ready: {}",
                object::reference(Resource::Tunnel, name),
                condition["message"].as_str().unwrap_or_default()
            ))
        }
        Some(None) => Err(Failure::new(format_args!(
            "tunnel {name:?} was deleted while being waited for"
        ))),
        None => {
            let failure = Failure::new(format_args!(
                "timed out waiting for tunnel {name:?} to be reached"
            ));
            let failure = match said.is_empty() {
                true => failure,
                false => failure.hint(said),
            };
            Err(failure.hint(format_args!(
                "it stays, and is tried again: `hivectl describe tunnel {name}` tells more"
            )))
        }
    }
}
