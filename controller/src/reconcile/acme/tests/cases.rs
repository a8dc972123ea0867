//! What comes of orders, whatever the authority is like, and whoever leads.

use std::sync::Arc;
use std::time::Duration;

use hive_acme::{Habits, Kind, Log};
use hive_manifests::Resource;
use serde_json::json;

use super::super::settings::Settings;
use super::super::{Certificates, account};
use super::{DEADLINE, HOST, World};
use crate::challenges::Challenges;
use crate::objects;
use crate::reconcile::Outlook;
use crate::state::Key;

#[tokio::test]
async fn a_tunnel_gets_a_certificate_by_either_challenge_whatever_the_authority_is_like() {
    type Case = (Kind, fn(&mut Habits));
    let cases: [Case; 4] = [
        (Kind::Http01, |_| {}),
        (Kind::TlsAlpn01, |habits| {
            habits.offers = vec![Kind::TlsAlpn01]
        }),
        (Kind::Http01, |habits| habits.bad_nonces = 2),
        (Kind::Http01, |habits| habits.slow = 2),
    ];
    for (kind, change) in cases {
        let world = World::asking(change).await;
        let said = world.says("photos", "True Issued ").await;
        assert!(said.contains("good for photos.localhost until "), "{said}");
        let [chain, key] = world.secret("photos").unwrap();
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(key.contains("PRIVATE KEY"));
        world.all_closed().await;
        let log = world.authority.so_far();
        assert_eq!(log.claims, [(kind, HOST.to_owned())]);
        assert_eq!((log.accounts, log.orders.len()), (1, 1));
        assert_eq!(log.contacts, ["mailto:ops@example.org"]);
        assert_eq!(log.certificates, [[HOST]]);
    }
}

#[tokio::test]
async fn one_account_is_for_all_tunnels_and_terms() {
    let mut world = World::settled().await;
    world.lead();
    for name in ["a", "b", "c"] {
        world
            .declare("default", name, &format!("{name}.localhost"))
            .await;
    }
    for name in ["a", "b", "c"] {
        world.says(name, "True Issued ").await;
    }
    assert_eq!(world.authority.so_far().accounts, 1);
    world.lead();
    world.declare("default", "d", "d.localhost").await;
    world.says("d", "True Issued ").await;
    let log = world.authority.so_far();
    assert_eq!((log.accounts, log.orders.len()), (1, 4));
}

#[tokio::test]
async fn nobody_is_asked_before_the_terms_are_agreed_to_and_the_name_leads_here() {
    let mut world = World::new().await;
    world.set("acme.agreeToTerms", "").await;
    world.lead();
    world.declare("default", "photos", HOST).await;
    // Of the top-level domain that never leads anywhere.
    world.declare("default", "lost", "lost.invalid").await;
    let said = world.says("photos", "False TermsNotAgreed ").await;
    assert!(said.contains("hivectl edit configmap swarm"), "{said}");
    assert_eq!(world.authority.so_far(), Log::default());
    world.set("acme.agreeToTerms", "true").await;
    world.says("photos", "True Issued ").await;
    let said = world.says("lost", "False NotResolved ").await;
    assert!(said.contains("lost.invalid"), "{said}");
    assert_eq!(world.authority.so_far().orders, [[HOST]]);
}

#[tokio::test]
async fn what_an_authority_says_is_passed_on() {
    type Case = (&'static str, &'static str, fn(&mut Habits));
    let cases: [Case; 5] = [
        (
            "False NameNotProven ",
            "photos.localhost was not proven: 127.0.0.1",
            |habits| habits.fails = Some("the page is another".into()),
        ),
        (
            "False RateLimited ",
            "too many new orders recently",
            |habits| {
                habits.limited = Some(7200);
            },
        ),
        ("False AuthorityUnreachable ", "it answers 503", |habits| {
            habits.is_down = true;
        }),
        ("False NoChallenge ", "photos.localhost", |habits| {
            habits.offers.clear();
        }),
        // As if the clock was ahead.
        (
            "False CertificateOutlived ",
            "look at the clock",
            |habits| {
                habits.lifetime = Duration::ZERO;
            },
        ),
    ];
    for (expected, words, change) in cases {
        let world = World::asking(change).await;
        let said = world.says("photos", expected).await;
        assert!(said.contains(words), "{said}");
        assert!(said.contains("; it is tried again at "), "{said}");
        let log = world.authority.so_far();
        assert!(log.orders.len() + log.refused <= 1, "{log:?}");
    }
}

#[tokio::test]
async fn the_next_leader_goes_on_with_the_order_and_renews_nothing_twice() {
    let mut world = World::held().await;
    world.lead();
    world.authority.change(|habits| habits.holds = false);
    world.says("photos", "True Issued ").await;
    world.all_closed().await;
    world.lead();
    world.declare("default", "other", "other.localhost").await;
    world.says("other", "True Issued ").await;
    let log = world.authority.so_far();
    assert_eq!(log.orders, [[HOST], ["other.localhost"]]);
    assert_eq!(log.certificates.len(), 2);
}

#[tokio::test]
async fn what_an_authority_asks_of_one_tunnel_holds_for_all_and_for_the_next_leader() {
    let mut world = World::asking(|habits| habits.limited = Some(600)).await;
    world.says("photos", "False RateLimited ").await;
    // It would be let in.
    world.authority.change(|habits| habits.limited = None);
    for name in ["second", "third"] {
        let host = format!("{name}.localhost");
        world.declare("default", name, &host).await;
        let said = world.says(name, "False AuthorityBusy ").await;
        assert!(said.contains(", and is asked again at "), "{said}");
        // Whoever leads next was not told so, and knows it.
        world.lead();
    }
    let log = world.authority.so_far();
    assert_eq!((log.refused, log.orders.len()), (1, 0));
}

/// It is likely one of the names: nothing says that others would meet it.
#[tokio::test]
async fn a_limit_that_lasts_for_hours_holds_for_the_tunnel_that_met_it() {
    let world = World::asking(|habits| habits.limited = Some(7200)).await;
    let said = world.says("photos", "False RateLimited ").await;
    world.authority.change(|habits| habits.limited = None);
    world.declare("default", "other", "other.localhost").await;
    world.says("other", "True Issued ").await;
    assert_eq!(world.says("photos", "False").await, said);
    let log = world.authority.so_far();
    assert_eq!((log.refused, log.orders.len()), (1, 1));
}

#[tokio::test]
async fn the_next_leader_waits_for_what_failed_as_the_one_before_did() {
    let why = "the page is another".to_owned();
    let mut world = World::asking(|habits| habits.fails = Some(why)).await;
    let said = world.says("photos", "False NameNotProven ").await;
    world.all_closed().await;
    world.lead();
    world.declare("default", "other", "other.localhost").await;
    world.says("other", "False NameNotProven ").await;
    let log = world.authority.so_far();
    assert_eq!(log.orders, [[HOST], ["other.localhost"]]);
    assert_eq!(world.says("photos", "False").await, said);
}

#[tokio::test]
async fn the_next_leader_has_as_much_leave_for_orders_as_the_one_before_left() {
    let world = World::settled().await;
    world.declare("default", "photos", HOST).await;
    let settings = Settings::of(&world.replica.state()).unwrap();
    // More than authorities take at once, and far more than a minute brings.
    let mut taken = 0;
    while account::take_leave(&world.replica, &settings)
        .await
        .unwrap()
    {
        taken += 1;
    }
    assert!(taken >= 50, "{taken}");
    let mut next = Certificates::new(&world.replica.state(), Arc::default());
    let outlook = next.pass(&world.replica).await;
    // It does not begin, but looks again when it may.
    let a_minute = Duration::from_secs(60);
    assert!(
        matches!(outlook, Outlook::In(wait) if wait <= a_minute),
        "{outlook:?}"
    );
    // Another authority counts for itself.
    world.set("acme.directory", "https://localhost:1/dir").await;
    let settings = Settings::of(&world.replica.state()).unwrap();
    let account = account::take_leave(&world.replica, &settings);
    assert!(account.await.unwrap());
}

/// After a failure the other challenge is taken first, but not while the authority looks at one.
#[tokio::test]
async fn what_an_authority_looks_at_stays_the_answer() {
    let mut world = World::held().await;
    let failed = json!({
        "time": "2026-01-01T00:00:00Z", "generation": 1, "directory": world.authority.directory(), "count": 1,
        "nextTime": "2026-01-01T00:01:00Z", "reason": "AuthoritySlow", "message": "it is not done yet",
    });
    let tunnel = Key::new(Resource::Tunnel, "default", "photos");
    let edited = objects::edit(&world.replica, &tunnel, |body| {
        body["status"]["certificate"]["failed"] = failed.clone();
        true
    });
    edited.await.unwrap();
    world.lead();
    let before = world.authority.so_far().looks;
    // One may be of the leader before. The next one looks once before it gives its answers.
    world.asked(|log| log.looks >= before + 3).await;
    world.authority.change(|habits| habits.holds = false);
    world.says("photos", "True Issued ").await;
    let claims = world.authority.so_far().claims;
    assert_eq!(claims, [(Kind::Http01, HOST.to_owned())]);
}

#[tokio::test]
async fn a_certificate_that_lives_for_seconds_is_renewed() {
    let world = World::asking(|habits| habits.lifetime = Duration::from_secs(15)).await;
    world.says("photos", "True Issued ").await;
    let first = world.secret("photos").unwrap();
    world
        .authority
        .change(|habits| habits.lifetime = Habits::default().lifetime);
    world.asked(|log| log.certificates.len() == 2).await;
    let second = world.until(|| world.secret("photos").filter(|it| *it != first));
    let second = tokio::time::timeout(DEADLINE, second).await.unwrap();
    // With a key of its own.
    assert_ne!(second[1], first[1]);
    world.all_closed().await;
    assert_eq!(world.authority.so_far().orders.len(), 2);
}

#[tokio::test]
async fn another_namespace_gets_no_certificate_for_a_host_that_is_taken() {
    let world = World::asking(|_| {}).await;
    world.says("photos", "True Issued ").await;
    // Made within a second of the other, the names decide; this one is behind in any case.
    world.declare("other", "zzz", HOST).await;
    let said = world.says_in("other", "zzz", "False HostTaken ").await;
    assert!(said.contains("belongs to namespace default"), "{said}");
    assert_eq!(world.authority.so_far().orders.len(), 1);
}

#[tokio::test]
async fn a_name_that_is_passed_through_is_not_certified_for_others() {
    let mut world = World::settled().await;
    let key = Key::new(Resource::Tunnel, "other", "aaa");
    let targets = json!([{ "node": "pi", "port": 5432 }]);
    let spec = json!({ "protocol": "TLS", "serverNames": [HOST], "targets": targets });
    let old = json!({ "spec": spec });
    world.create(key, old).await;
    world.lead();
    world.declare("zzz", "photos", HOST).await;
    let said = world.says_in("zzz", "photos", "False HostTaken ").await;
    assert!(said.contains("belongs to namespace other"), "{said}");
    assert_eq!(world.authority.so_far(), Log::default());
}

#[tokio::test]
async fn somebody_elses_secret_stays_as_it_is() {
    let mut world = World::settled().await;
    let key = Key::new(Resource::Secret, "default", "photos-acme");
    world.create(key.clone(), json!({ "type": "Opaque" })).await;
    world.lead();
    world.declare("default", "photos", HOST).await;
    world.says("photos", "False SecretTaken ").await;
    let state = world.replica.state();
    assert_eq!(state.get(&key).unwrap().to_value()["type"], "Opaque");
    assert_eq!(world.authority.so_far(), Log::default());
}

#[tokio::test]
async fn nothing_is_answered_for_an_order_that_is_closed() {
    let world = World::held().await;
    let challenges = Challenges::follow(&world.replica, world.term.clone());
    assert!(
        challenges
            .challenge_certificate("Photos.localhost")
            .is_some()
    );
    assert!(
        challenges
            .challenge_certificate("other.localhost")
            .is_none()
    );
    world.authority.change(|habits| habits.holds = false);
    world.says("photos", "True Issued ").await;
    world.all_closed().await;
    let challenges = Challenges::follow(&world.replica, world.term.clone());
    assert!(challenges.challenge_certificate(HOST).is_none());
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_registered_anew() {
    let mut world = World::settled().await;
    world.lead();
    world.declare("default", "a", "a.localhost").await;
    world.says("a", "True Issued ").await;
    world.authority.forget_accounts();
    world.declare("default", "b", "b.localhost").await;
    let said = world.says("b", "False OrderFailed ").await;
    assert!(said.contains("the account is not known here"), "{said}");
    // Whoever comes next registers, with the key that there is.
    world.declare("default", "c", "c.localhost").await;
    world.says("c", "True Issued ").await;
    assert_eq!(world.authority.so_far().accounts, 2);
}
