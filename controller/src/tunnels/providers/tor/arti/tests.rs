//! Arti itself, in a network whose relays nobody runs: what can be seen without one.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use tokio::time::timeout;

use super::super::world::{World, tunnel};
use super::*;

/// For what takes a moment on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One authority and one relay, at a port of this machine that no program has.
const NOWHERE: &str = r#"
[tor_network.authorities]
v3idents = ["000D252DCFA8FC91143A4DC5A3EDE0ECF29919AE"]
uploads = [["127.0.0.1:1"]]
downloads = [["127.0.0.1:1"]]
votes = [["127.0.0.1:1"]]

[[tor_network.fallback_caches]]
rsa_identity = "CC168F8977B1ACC98D4028DF1FE2E742421A04E1"
ed_identity = "kVbEsThFnAldEsWG6tb6WRhzQpUugyeWZFqRE38FCrg"
orports = ["127.0.0.1:1"]
"#;

/// A key pair that was made for tests; this is the public one.
const CLIENT: &str = "descriptor:x25519:GVPBFW6MEUEVAHB6ABYIG4CAPO2AAW6Y4JFIZ524XAZSUTAKIJ3Q";

async fn world() -> World {
    let mut world = World::new().await;
    fs::create_dir_all(&world.tor.dir).unwrap();
    let file = world.tor.dir.join("arti.toml");
    fs::write(&file, NOWHERE).unwrap();
    world.tor.config = Some(file);
    world
}

fn onion(clients: &[&str]) -> Onion {
    Onion {
        uid: "u".to_owned(),
        key: None,
        port: 80,
        clients: clients.iter().map(|&client| client.to_owned()).collect(),
        host: None,
    }
}

/// An Arti, as a session has it: one whose tasks go on for a moment after it was let go writes its last, and the next one
/// finds fault with a directory in which files come and go. It is started until it is not disturbed.
async fn started(tor: &Tor) -> Arti {
    let mut why = String::new();
    let starting = async {
        loop {
            match Arti::start(tor).await {
                Ok(arti) => return arti,
                Err(trouble) => why = trouble.message,
            }
            tokio::task::yield_now().await;
        }
    };
    let started = timeout(PATIENCE, starting).await;
    started.unwrap_or_else(|_| panic!("no Arti starts within {PATIENCE:?}: {why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_the_address_of_its_key_as_often_as_it_is_served() {
    let world = world().await;
    let identity = Identity::make();
    let host = identity.host();
    // The second time in the same Arti, then in another one.
    for _ in 0..2 {
        let mut arti = started(&world.tor).await;
        for clients in [&[][..], &[CLIENT]] {
            let again = Identity::read(&identity.write()).unwrap();
            let launched = arti.launch(&tunnel(), &onion(clients), again);
            let mut service = launched.unwrap();
            let id = service.running.onion_address().unwrap();
            let address = safelog::DisplayRedacted::display_unredacted(&id).to_string();
            assert_eq!(address, host);
            let trouble = arti.look(&mut service).unwrap();
            assert_eq!(trouble.reason, "TorConnecting", "{}", trouble.message);
        }
    }
    // Arti's keys are in memory.
    let kept = fs::read_dir(world.tor.dir.join("state")).unwrap();
    let names: Vec<_> = kept.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "keystore"), "{names:?}");
}

#[tokio::test]
async fn clients_that_have_no_key_are_told_which() {
    let world = world().await;
    let mut arti = Arti::start(&world.tor).await.unwrap();
    let clients = [CLIENT, "descriptor:x25519:a2"];
    let launched = arti.launch(&tunnel(), &onion(&clients), Identity::make());
    let trouble = launched.err().unwrap();
    assert_eq!(trouble.reason, "ClientInvalid");
    assert!(trouble.message.contains("authorizedClients[1]"));
}

#[test]
fn a_configuration_is_taken_but_for_where_files_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("arti.toml");
    let own = dir.path().join("a \"b\" ${c}");
    for (text, expected) in [
        ("", None),
        (NOWHERE, None),
        ("[storage]\nstate_dir = \"/nowhere\"\n", None),
        ("[storage.keystore.primary]\nkind = \"native\"\n", None),
        ("[channel]\npadding = 7\n", Some("TorConfigInvalid")),
        ("no TOML", Some("TorConfigInvalid")),
    ] {
        fs::write(&file, text).unwrap();
        let read = configure(&own, Some(&file));
        let reason = read.as_ref().err().map(|trouble| trouble.reason);
        assert_eq!(reason, expected, "{text}");
        match read {
            Ok(config) => {
                let kind = config.keystore().primary_kind();
                assert!(format!("{kind:?}").contains("Ephemeral"), "{kind:?}");
                let cache = config.dir_mgr_config().unwrap().cache_dir;
                assert_eq!(cache, own.join("cache"));
            }
            Err(trouble) => assert!(trouble.message.contains("arti.toml"), "{}", trouble.message),
        }
    }
    let missing = configure(&own, Some(&dir.path().join("none.toml")));
    assert_eq!(missing.err().unwrap().reason, "TorConfigInvalid");
}
