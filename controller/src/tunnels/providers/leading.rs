//! What one controller alone does for tunnels of providers, while it leads.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

use super::Standings;
use super::cloudflare::account::Accounts;
use super::cloudflare::api::Api;
use super::tor::{self, Tor};
use crate::store::Replica;

#[derive(Clone)]
pub struct Leading {
    pub cloudflare: Api,
    /// The swarm's name, which is in the names of what it makes elsewhere.
    pub cluster: String,
    /// Where this controller's ingress listens.
    pub ingress: SocketAddr,
    pub tor: Tor,
}

impl Leading {
    /// What makes tunnels at Cloudflare.
    pub fn accounts(&self, standings: Standings) -> Accounts {
        let (api, cluster) = (self.cloudflare.clone(), self.cluster.clone());
        Accounts::new(api, cluster, self.ingress, standings)
    }

    /// Serves onion services until cancelled: of two that serve one address, clients would find now the one and now the
    /// other.
    pub fn onions(
        &self,
        replica: Replica,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        tor::serve(self.tor.clone(), replica, cancel)
    }
}
