//! Tor: the leader serves all tunnels of this provider as onion services, by Arti, whose keys are in Secrets.
//!
//! A service's key is made once; whoever leads later serves the same address with it. Keys are handed to Arti in memory
//! and are on no disk. What clients open comes as streams of Arti's, without a port, and goes on as all connections of
//! tunnels. A build without the feature `tor` has none of this, and says so.

#[cfg(not(feature = "tor"))]
mod absent;
#[cfg(feature = "tor")]
mod arti;
#[cfg(feature = "tor")]
mod directory;
#[cfg(feature = "tor")]
mod door;
#[cfg(feature = "tor")]
mod identity;
#[cfg(feature = "tor")]
mod onions;
#[cfg(feature = "tor")]
mod session;
#[cfg(all(test, feature = "tor"))]
mod world;

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Part, Provider, Standings, follow, may_matter};
use crate::ingress::Forwarder;
use crate::reconcile::{Looks, Outlook};
use crate::store::Replica;
use crate::tunnels::Tunnels;
use crate::tunnels::table::Follower;

#[cfg(not(feature = "tor"))]
pub use absent::serve;
#[cfg(feature = "tor")]
pub use onions::serve;

/// Looks that left something to do would come this often. None does: the session with Tor tries again by itself.
const RETRY: Duration = Duration::from_secs(5);

/// How Arti is run, and where its connections go.
#[derive(Clone)]
pub struct Tor {
    /// Where it keeps what it knows of the network; no keys of services.
    pub dir: PathBuf,
    /// Its own configuration, for another network than the public one, or another way there.
    pub config: Option<PathBuf>,
    pub forwarder: Forwarder,
    pub tunnels: Tunnels,
}

/// Keeps a provider up to date with the state, until cancelled.
async fn follow_state<P: Provider>(
    mut provider: P,
    standings: Standings,
    replica: &Replica,
    cancel: &CancellationToken,
) {
    let mut follower = Follower::default();
    Looks::new(replica, RETRY, cancel)
        .only_for(may_matter)
        .run(async move |_, state| {
            let tunnels = follower.tunnels(state);
            follow(&mut provider, &standings, Part::Connector, &tunnels, state);
            Outlook::Settled
        })
        .await;
}
