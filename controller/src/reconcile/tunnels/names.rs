//! Whether names lead to this swarm at all, whatever answers behind them: found out as a tunnel is tried.

use std::time::Duration;

use super::Why;
use super::ask::{Advertised, Ask, Question, Way};
use super::probe::{Answer, Observation, probe};
use super::verdict::verdict;
use crate::challenges;
use crate::state::State;

/// The ingress answers by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a request for a host does not come to a controller, if it does not.
pub async fn leads_here(host: &str, state: &State) -> Result<(), Why> {
    let controllers = Advertised::all(state);
    let question = Question {
        host: host.to_owned(),
        method: Some("GET"),
        // No route has it.
        path: challenges::PATH.to_owned(),
        patience: PATIENCE,
        // Authorities look there, where nobody has a certificate yet.
        https: None,
    };
    let ask = Ask {
        way: Way::Http(question),
        controllers,
        // It is answered before any tunnel is looked for.
        guarded: false,
    };
    let seen = probe(&ask).await;
    match comes_through(&seen) {
        true => Ok(()),
        false => verdict(&ask, &seen, &[]).map(drop),
    }
}

/// A controller said something at the address to which the name leads.
fn comes_through(seen: &Observation) -> bool {
    let doors = seen.public.as_deref().unwrap_or_default();
    let mut answers = doors.iter().filter_map(|door| seen.answers.get(door));
    answers.any(|answer| matches!(answer, Answer::Reached(_) | Answer::Refused(_)))
}
