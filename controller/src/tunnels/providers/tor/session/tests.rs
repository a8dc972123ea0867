//! Sessions with a network that is in this process.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use super::super::super::Token;
use super::super::world::{World, tunnel};
use super::*;

/// Serves whatever it is told to; how services are is what was said last.
#[derive(Clone, Default)]
struct Fake {
    /// Addresses with a plus as they begin, with a minus as they end.
    heard: Arc<Mutex<Vec<String>>>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

struct FakeService {
    host: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Drop for FakeService {
    fn drop(&mut self) {
        let ended = format!("-{}", self.host);
        self.heard.lock().unwrap().push(ended);
    }
}

impl Network for Fake {
    type Service = FakeService;

    fn launch(&mut self, _: &Key, _: &Onion, identity: Identity) -> Result<FakeService, Trouble> {
        let host = identity.host();
        self.heard.lock().unwrap().push(format!("+{host}"));
        Ok(FakeService {
            host,
            heard: self.heard.clone(),
        })
    }

    fn look(&self, _: &mut FakeService) -> Option<Trouble> {
        self.trouble.lock().unwrap().clone()
    }
}

fn session(world: &World, network: Fake) -> Session<'_, Fake> {
    Session {
        standings: &world.tor.tunnels.standings,
        replica: &world.replica,
        network,
        serving: BTreeMap::new(),
    }
}

fn onion(key: Option<&Token>) -> Wanted {
    let onion = Onion {
        uid: "u".to_owned(),
        key: key.cloned(),
        port: 80,
        clients: Vec::new(),
        host: Some("photos.default.localhost".to_owned()),
    };
    [(tunnel(), onion)].into()
}

/// What the Secret has.
fn kept(world: &World) -> Option<Token> {
    let state = world.replica.state();
    let secret = Key::new(Resource::Secret, "default", "photos-onion");
    let secret = state.get(&secret)?.to_value().into_owned();
    let text = BASE64.decode(secret["data"][ONION_KEY].as_str()?).unwrap();
    Some(Token::new(String::from_utf8(text).unwrap()))
}

/// Its reason, or the host.
fn told(world: &World) -> String {
    let standing = world.tor.tunnels.standings.of(&tunnel(), Kind::Tor);
    match standing.trouble {
        Some(trouble) => trouble.reason.to_owned(),
        None => standing.host.unwrap_or_default(),
    }
}

#[tokio::test]
async fn an_address_survives_who_serves_it() {
    let world = World::new().await;
    assert_eq!(told(&world), "Starting");
    let first = Fake::default();
    let mut served = session(&world, first.clone());
    served.look(&onion(None)).await;
    let host = told(&world);
    assert!(host.len() == 62 && host.ends_with(".onion"), "{host}");
    let key = kept(&world).unwrap();
    assert_eq!(Identity::read(&key).unwrap().host(), host);
    // The state follows; nothing is to be done for it.
    served.look(&onion(None)).await;
    served.look(&onion(Some(&key))).await;
    assert_eq!(*first.heard.lock().unwrap(), [format!("+{host}")]);
    drop(served);
    assert_eq!(first.heard.lock().unwrap().len(), 2);

    // Who leads next.
    let second = Fake::default();
    session(&world, second.clone())
        .look(&onion(Some(&key)))
        .await;
    assert_eq!(told(&world), host);
    assert_eq!(second.heard.lock().unwrap()[0], format!("+{host}"));
}

#[tokio::test]
async fn another_key_is_another_service_and_none_is_a_new_one() {
    let world = World::new().await;
    let network = Fake::default();
    let mut served = session(&world, network.clone());
    let (one, two) = (Identity::make(), Identity::make());
    served.look(&onion(Some(&one.write()))).await;
    served.look(&onion(Some(&two.write()))).await;
    assert_eq!(told(&world), two.host());
    // Somebody deleted the Secret.
    served.look(&onion(None)).await;
    let made = told(&world);
    assert!(made != one.host() && made != two.host(), "{made}");
    assert_eq!(Identity::read(&kept(&world).unwrap()).unwrap().host(), made);
    served.look(&Wanted::new()).await;
    let expected = [
        format!("+{}", one.host()),
        format!("-{}", one.host()),
        format!("+{}", two.host()),
        format!("-{}", two.host()),
        format!("+{made}"),
        format!("-{made}"),
    ];
    assert_eq!(*network.heard.lock().unwrap(), expected);
}

#[tokio::test]
async fn what_is_no_key_is_one_tunnels_trouble() {
    let world = World::new().await;
    let mut served = session(&world, Fake::default());
    served
        .look(&onion(Some(&Token::new("ED25519-V3:broken"))))
        .await;
    assert_eq!(told(&world), "SecretInvalid");
    let good = Identity::make();
    served.look(&onion(Some(&good.write()))).await;
    assert_eq!(told(&world), good.host());
}

#[tokio::test]
async fn a_service_that_is_not_found_is_told_until_it_is() {
    let world = World::new().await;
    let network = Fake::default();
    let trouble = Trouble::new("TorPublishing", "soon");
    *network.trouble.lock().unwrap() = Some(trouble);
    let mut served = session(&world, network.clone());
    let identity = Identity::make();
    let wanted = onion(Some(&identity.write()));
    served.look(&wanted).await;
    assert_eq!(told(&world), "TorPublishing");
    *network.trouble.lock().unwrap() = None;
    served.look(&wanted).await;
    assert_eq!(told(&world), identity.host());
}
