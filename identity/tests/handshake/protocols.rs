//! What is spoken once both know each other.

use super::*;

#[test]
fn a_side_of_the_release_before_is_spoken_to_as_ever() {
    let ca = ca();
    let before = || vec![LINK_ALPN.to_vec()];
    let mut old_client = Arc::unwrap_or_clone(link(&node(&ca, "pi")));
    old_client.alpn_protocols = before();
    let mut old_server = Arc::unwrap_or_clone(link_server_config(&controller(&ca, 1)));
    old_server.alpn_protocols = before();
    for (client, server) in [
        (old_client.into(), link_server_config(&controller(&ca, 1))),
        (link(&node(&ca, "pi")), old_server.into()),
    ] {
        let outcome = handshake(client, server).connected();
        assert_eq!(outcome.client.alpn_protocol(), Some(LINK_ALPN));
        assert_eq!(outcome.server.alpn_protocol(), Some(LINK_ALPN));
    }
}

#[test]
fn another_protocol_is_refused_in_the_handshake() {
    let ca = ca();
    let mut client = Arc::unwrap_or_clone(link(&node(&ca, "pi")));
    client.alpn_protocols = vec![b"hive/2".to_vec()];
    let outcome = handshake(client.into(), link_server_config(&controller(&ca, 1)));
    assert_eq!(outcome.server_error, Some(Error::NoApplicationProtocol));
}
