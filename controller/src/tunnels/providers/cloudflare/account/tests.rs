//! A leader's looks at an account that is in this process.

#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::tunnel::TUNNEL_TOKEN;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::stand_in::{ACCOUNT, StandIn, TOKEN};
use super::*;
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::deletion::Propagation;
use crate::fixture::Alone;
use crate::ingress::routes::SETTINGS;
use crate::objects;
use crate::state::{Command, Member};

const HOST: &str = "photos.example.org";

struct World {
    replica: Replica,
    cloudflare: StandIn,
    standings: Standings,
    accounts: Accounts,
    _dir: TempDir,
}

fn key() -> Key {
    Key::new(Resource::Tunnel, "default", "photos")
}

fn spec(host: &str) -> Value {
    json!({
        "provider": "Cloudflare",
        "http": { "host": host },
        "cloudflare": { "secretName": "api", "accountId": ACCOUNT },
        "targets": [{ "node": "pi", "port": 3000 }],
    })
}

fn trouble_of(standings: &Standings, tunnel: &Key) -> String {
    let told = standings.snapshot();
    let told = told.get(&(tunnel.clone(), Part::Account));
    match told.map(|it| &it.trouble) {
        None => "nothing".to_owned(),
        Some(None) => "well".to_owned(),
        Some(Some(trouble)) => format!("{}: {}", trouble.reason, trouble.message),
    }
}

impl World {
    /// With a Tunnel, and a Secret with that API token.
    async fn new(token: &str) -> Self {
        let Alone { replica, dir, .. } = Alone::start(Member::default()).await;
        let cloudflare = StandIn::start(&["example.org", "example.net"]).await;
        let standings = Standings::default();
        let api = Api::new(cloudflare.base.clone());
        let ingress = "0.0.0.0:8080".parse().unwrap();
        let accounts = Accounts::new(api, "hive".to_owned(), ingress, standings.clone());
        let world = Self {
            replica,
            cloudflare,
            standings,
            accounts,
            _dir: dir,
        };
        let data = json!({ "data": { API_TOKEN: BASE64.encode(token) } });
        let permitted = json!({ "data": { "cloudflare.namespaces": "default" } });
        for (key, extra) in [
            (Key::new(Resource::Namespace, "", "default"), json!({})),
            (
                Key::new(Resource::Namespace, "", SYSTEM_NAMESPACE),
                json!({}),
            ),
            (settings(), permitted),
            (Key::new(Resource::Secret, "default", "api"), data),
            (key(), json!({ "spec": spec(HOST) })),
        ] {
            let body = objects::fresh(&key, json!({}), extra);
            objects::ensure(&world.replica, key, body).await.unwrap();
        }
        world
    }

    async fn look(&mut self) -> Outlook {
        let state = self.replica.state();
        self.accounts.pass(&self.replica, &state).await
    }

    async fn edit(&self, change: impl Fn(&mut Value)) {
        objects::edit(&self.replica, &key(), |body| {
            change(body);
            true
        })
        .await
        .unwrap();
    }

    async fn delete(&self) {
        let state = self.replica.state();
        let current = state.get(&key()).unwrap();
        let policy = Some(Propagation::Background);
        let command = deletion::command(current, policy, SystemTime::now()).unwrap();
        self.replica.propose(command).await.unwrap();
    }

    fn trouble(&self) -> String {
        trouble_of(&self.standings, &key())
    }

    async fn create(&self, name: &str, host: &str) -> Key {
        let key = Key::new(Resource::Tunnel, "default", name);
        let body = objects::fresh(&key, json!({}), json!({ "spec": spec(host) }));
        objects::ensure(&self.replica, key.clone(), body)
            .await
            .unwrap();
        key
    }

    /// As the tunnel is called at Cloudflare.
    fn name(&self) -> String {
        let tunnel = self.object(&key()).unwrap();
        let uid = tunnel["metadata"]["uid"].as_str().unwrap();
        format!("hive.default.photos.{}", &uid[..8])
    }

    fn object(&self, key: &Key) -> Option<Value> {
        let state = self.replica.state();
        Some(state.get(key)?.to_value().into_owned())
    }
}

fn settings() -> Key {
    Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS)
}

fn token_secret() -> Key {
    Key::new(Resource::Secret, "default", "photos-cloudflared")
}

#[tokio::test]
async fn a_tunnel_is_made_kept_and_deleted_with_its_object() {
    let mut world = World::new(TOKEN).await;
    world.look().await;
    assert_eq!(world.trouble(), "well");
    {
        let there = world.cloudflare.world();
        assert_eq!(there.tunnels["t1"]["name"], world.name());
        assert_eq!(
            there.records(),
            ["CNAME photos.example.org t1.cfargotunnel.com"]
        );
        let service = "http://127.0.0.1:8080";
        let rules = json!([
            { "hostname": HOST, "service": service },
            { "service": "http_status:404" },
        ]);
        assert_eq!(there.configurations["t1"]["ingress"], rules);
    }
    let secret = world.object(&token_secret()).unwrap();
    let service = BASE64.encode("http://127.0.0.1:8080");
    let data = json!({ TUNNEL_TOKEN: BASE64.encode("token-of-t1"), SERVICE: service });
    assert_eq!(secret["data"], data);
    let tunnel = world.object(&key()).unwrap();
    assert_eq!(tunnel["metadata"]["finalizers"], json!([FINALIZER]));
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], tunnel["metadata"]["uid"]);

    // There is nothing to change, and then nothing to ask.
    world.look().await;
    world.look().await;
    let asked = world.cloudflare.world().asked;
    world.look().await;
    assert_eq!(world.cloudflare.world().asked, asked);
    assert_eq!(world.cloudflare.world().changes.len(), 3);

    // Its former host is left to others.
    world
        .edit(|body| body["spec"] = spec("new.example.net"))
        .await;
    world.look().await;
    assert_eq!(world.trouble(), "well");
    let records = world.cloudflare.world().records();
    assert_eq!(records, ["CNAME new.example.net t1.cfargotunnel.com"]);

    world.delete().await;
    assert!(world.object(&key()).is_some());
    world.look().await;
    assert_eq!(world.object(&key()), None);
    let there = world.cloudflare.world();
    assert!(there.tunnels.is_empty() && there.records.is_empty());
}

#[tokio::test]
async fn what_a_lost_leader_made_is_taken_over() {
    let mut world = World::new(TOKEN).await;
    // It got as far as the tunnel, and a record of one before.
    {
        let name = world.name();
        let mut there = world.cloudflare.world();
        let made = json!({ "id": "t9", "name": name });
        there.tunnels.insert("t9".to_owned(), made);
        let record = json!({
            "type": "CNAME",
            "name": HOST,
            "content": "t8.cfargotunnel.com",
            "proxied": true,
            "comment": format!("Hive tunnel {name}"),
        });
        there.add_record("z-example.org", record);
    }
    world.look().await;
    assert_eq!(world.trouble(), "well");
    let there = world.cloudflare.world();
    assert_eq!(there.tunnels.len(), 1);
    assert_eq!(
        there.records(),
        ["CNAME photos.example.org t9.cfargotunnel.com"]
    );
}

#[tokio::test]
async fn a_tunnel_goes_whose_secret_went_before() {
    let mut world = World::new(TOKEN).await;
    world.look().await;
    assert_eq!(world.trouble(), "well");
    let gone = Command::Delete {
        key: Key::new(Resource::Secret, "default", "api"),
        uid: None,
        expect: None,
    };
    world.replica.propose(gone).await.unwrap();
    world.look().await;
    let told = world.trouble();
    assert!(told.starts_with("SecretNotFound"), "{told}");
    world.delete().await;
    world.look().await;
    assert_eq!(world.object(&key()), None);
    let there = world.cloudflare.world();
    assert!(there.tunnels.is_empty() && there.records.is_empty());
}

#[tokio::test]
async fn nothing_is_made_without_leave_and_what_was_made_is_deleted() {
    let mut world = World::new(TOKEN).await;
    let leave = async |world: &World, namespaces: &str| {
        objects::edit(&world.replica, &settings(), |body| {
            body["data"] = json!({ "cloudflare.namespaces": namespaces });
            true
        })
        .await
        .unwrap();
    };
    leave(&world, "other").await;
    world.look().await;
    let told = world.trouble();
    assert!(told.starts_with("NotPermitted"), "{told}");
    assert_eq!(world.cloudflare.world().asked, 0);
    leave(&world, "*").await;
    world.look().await;
    assert_eq!(world.trouble(), "well");
    leave(&world, "").await;
    world.look().await;
    let told = world.trouble();
    assert!(told.starts_with("NotPermitted"), "{told}");
    world.delete().await;
    world.look().await;
    assert_eq!(world.object(&key()), None);
    let there = world.cloudflare.world();
    assert!(there.tunnels.is_empty() && there.records.is_empty());
}

/// As if each had been set up by the same words.
#[tokio::test]
async fn two_swarms_in_one_account_leave_each_other_alone() {
    let (mut world, mut other) = (World::new(TOKEN).await, World::new(TOKEN).await);
    let api = Api::new(world.cloudflare.base.clone());
    other.accounts.executor = Executor::new(api);
    other
        .edit(|body| body["spec"] = spec("other.example.net"))
        .await;
    for world in [&mut world, &mut other] {
        world.look().await;
        assert_eq!(world.trouble(), "well");
    }
    assert_eq!(world.cloudflare.world().tunnels.len(), 2);
    other.delete().await;
    other.look().await;
    assert_eq!(other.object(&key()), None);
    let there = world.cloudflare.world();
    let names: Vec<_> = there.tunnels.values().map(|it| &it["name"]).collect();
    assert_eq!(names, [&json!(world.name())]);
    assert_eq!(there.records().len(), 1);
}

#[tokio::test]
async fn what_others_made_stays_and_is_told() {
    let mut world = World::new(TOKEN).await;
    let record = json!({ "type": "A", "name": HOST, "content": "192.0.2.1", "proxied": true });
    let id = world.cloudflare.world().add_record("z-example.org", record);
    world.look().await;
    let told = world.trouble();
    assert!(
        told.starts_with("RecordInTheWay: photos.example.org has the DNS record A 192.0.2.1"),
        "{told}"
    );
    // Of the tunnel that was made nothing stays when it goes, and of the others all.
    world.delete().await;
    world.look().await;
    assert_eq!(world.object(&key()), None);
    let there = world.cloudflare.world();
    assert!(there.tunnels.is_empty());
    assert_eq!(there.records.keys().collect::<Vec<_>>(), [&id]);
}

#[tokio::test]
async fn what_is_in_the_way_is_told_in_words() {
    let mut world = World::new("another-token").await;
    world.look().await;
    let told = world.trouble();
    assert!(
        told.starts_with("CloudflareDenied: Cloudflare's API refuses to list tunnels (10000: Authentication error)"),
        "{told}"
    );
    assert!(!told.contains("another-token"), "{told}");
    // The right one is tried at once.
    let secret = Key::new(Resource::Secret, "default", "api");
    objects::edit(&world.replica, &secret, |body| {
        body["data"][API_TOKEN] = json!(BASE64.encode(TOKEN));
        true
    })
    .await
    .unwrap();
    world.cloudflare.world().refusals = vec![StatusCode::TOO_MANY_REQUESTS];
    let outlook = world.look().await;
    let told = world.trouble();
    assert!(told.starts_with("CloudflareRateLimited"), "{told}");
    let Outlook::In(wait) = outlook else {
        panic!("{outlook:?}");
    };
    assert!(wait > Duration::from_secs(60), "{wait:?}");
    // Until then it is not asked, of no tunnel.
    let asked = world.cloudflare.world().asked;
    let second = world.create("second", "second.example.net").await;
    world.look().await;
    assert_eq!(world.cloudflare.world().asked, asked);
    let told = trouble_of(&world.standings, &second);
    assert!(told.starts_with("CloudflareRateLimited"), "{told}");
}

#[tokio::test]
async fn a_tunnel_of_which_nothing_is_answered_holds_up_no_other() {
    let mut world = World::new(TOKEN).await;
    let second = world.create("second", "second.example.net").await;
    world.cloudflare.world().silent = Some(world.name());
    let standings = world.standings.clone();
    let settled = async {
        while trouble_of(&standings, &second) != "well" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        outlook = world.look() => panic!("the first was answered: {outlook:?}"),
        () = settled => {}
    }
    assert_eq!(world.trouble(), "nothing");
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_written_to() {
    let mut world = World::new(TOKEN).await;
    let data = json!({ "data": { "mine": BASE64.encode("x") } });
    let body = objects::fresh(&token_secret(), json!({}), data.clone());
    objects::ensure(&world.replica, token_secret(), body)
        .await
        .unwrap();
    world.look().await;
    let told = world.trouble();
    assert!(
        told.starts_with("SecretInUse: secret photos-cloudflared"),
        "{told}"
    );
    assert_eq!(world.object(&token_secret()).unwrap()["data"], data["data"]);
}
