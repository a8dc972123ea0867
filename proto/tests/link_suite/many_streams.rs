//! What sides of different releases let each other open.

use std::sync::Arc;

use hive_identity::LINK_ALPN;
use hive_proto::link::{LinkSettings, Purpose, Transports};

use crate::parties::{Swarm, link, settings, within};

/// What the release before let its peers open, and relied on.
const BEFORE: usize = 256;

#[tokio::test]
async fn a_node_of_the_release_before_is_not_opened_more_than_it_takes() {
    for transports in [Transports::QuicOnly, Transports::TcpOnly] {
        let swarm = Swarm::new();
        let settings: LinkSettings = settings(transports);
        let listener = swarm.listen(settings.clone()).await;
        let mut config = Arc::unwrap_or_clone(swarm.client_config());
        config.alpn_protocols = vec![LINK_ALPN.to_vec()];
        let (node, controller) = link(&listener, config.into(), &settings).await;
        let (node, controller) = (node.unwrap(), controller.unwrap());
        assert_eq!(controller.most_streams(), BEFORE, "{transports:?}");
        assert!(node.most_streams() <= BEFORE, "{transports:?}");
        let (opened, accepted) =
            within(async { tokio::join!(controller.open(Purpose::Tunnel), node.accept()) }).await;
        assert_eq!(accepted.unwrap().0, Purpose::Tunnel);
        opened.unwrap();
    }
}
