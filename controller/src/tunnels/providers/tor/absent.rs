//! A build without the feature `tor` serves no onion services, and says so of their tunnels.

use std::collections::BTreeMap;
use std::convert::Infallible;

use hive_manifests::tunnel::Provider as Kind;
use tokio_util::sync::CancellationToken;

use super::super::{Provider, Trouble};
use super::{Tor, follow_state};
use crate::state::{Key, State};
use crate::store::Replica;
use crate::tunnels::table::Tunnel;

struct Absent;

impl Provider for Absent {
    type Job = Infallible;
    const KIND: Kind = Kind::Tor;

    fn job(&self, _: &Tunnel, _: &State) -> Result<Infallible, Trouble> {
        let message = "this build of hive has no Tor: run controllers with one that was built with `--features tor`";
        Err(Trouble::new("TorNotBuilt", message))
    }

    fn serve(&mut self, _: BTreeMap<Key, Infallible>) {}
}

/// Tells of all tunnels of this provider why they are not served, until cancelled.
pub async fn serve(tor: Tor, replica: Replica, cancel: CancellationToken) {
    follow_state(Absent, tor.tunnels.standings, &replica, &cancel).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use serde_json::json;

    use super::*;
    use crate::fixture::declare;
    use crate::tunnels::providers::{Part, Standings, follow};
    use crate::tunnels::table::Table;

    #[test]
    fn a_tunnel_is_told_which_build_would_serve_it() {
        let mut state = State::default();
        let key = Key::new(Resource::Tunnel, "default", "photos");
        let spec = json!({ "provider": "Tor", "targets": [{ "node": "pi", "port": 1 }] });
        declare(&mut state, key.clone(), json!({ "spec": spec }));
        let standings = Standings::default();
        let table = Table::of(&state);
        let part = Part::Connector;
        follow(&mut Absent, &standings, part, &table.tunnels, &state);
        let trouble = standings.of(&key, Kind::Tor).trouble.unwrap();
        assert_eq!(trouble.reason, "TorNotBuilt");
        assert!(trouble.message.contains("--features tor"));
    }
}
