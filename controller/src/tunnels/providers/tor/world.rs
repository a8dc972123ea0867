//! A controller with its state, for tests of this provider.

#![allow(clippy::unwrap_used)]

use hive_manifests::Resource;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::Tor;
use crate::fixture::Alone;
use crate::gateway::{Invoker, Nodes};
use crate::ingress::{self, Forwarder};
use crate::objects;
use crate::state::{Key, Member};
use crate::store::Replica;
use crate::traffic::Loads;
use crate::tunnels::Tunnels;

pub struct World {
    pub replica: Replica,
    pub tor: Tor,
    _dir: TempDir,
}

impl World {
    pub async fn new() -> Self {
        let Alone {
            replica,
            peers,
            dir,
        } = Alone::start(Member::default()).await;
        let namespace = Key::new(Resource::Namespace, "", "default");
        let body = objects::fresh(&namespace, json!({}), json!({}));
        objects::ensure(&replica, namespace, body).await.unwrap();
        let nodes = Nodes::new(replica.clone(), peers);
        let tunnels = Tunnels::new(nodes.links().clone());
        let routes = ingress::follow_routes(&replica, CancellationToken::new());
        let forwarder = Forwarder::new(
            routes,
            Invoker::new(nodes),
            tunnels.clone(),
            Loads::default(),
            None,
        );
        let tor = Tor {
            dir: dir.path().join("tor"),
            config: None,
            forwarder,
            tunnels,
        };
        Self {
            replica,
            tor,
            _dir: dir,
        }
    }
}

pub fn tunnel() -> Key {
    Key::new(Resource::Tunnel, "default", "photos")
}
