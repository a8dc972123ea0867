//! What becomes of a connection that asks for the name of a TLS server: the table's names, with the certificates of
//! this moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use jiff::Timestamp;

use super::certificates::{Certificate, Certificates};
use super::table::{Named, Table};
use crate::state::Key;

/// What becomes of it.
#[derive(Clone, Debug)]
pub enum Door {
    /// It is passed through to the targets of this tunnel.
    Passed(Key),
    /// TLS ends here, and HTTP begins.
    Ended(Arc<Certificate>),
}

/// Why a connection got no further than its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no tunnel has this name, or there is no certificate for it")]
    UnrecognizedName,
    #[error("it does not begin as TLS does")]
    BadHello,
    #[error("its handshake was not done in time")]
    Slow,
    #[error("its handshake came to nothing")]
    Handshake,
}

impl Refusal {
    const ALL: [Self; 4] = [
        Self::UnrecognizedName,
        Self::BadHello,
        Self::Slow,
        Self::Handshake,
    ];

    /// In one CamelCase word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnrecognizedName => "UnrecognizedName",
            Self::BadHello => "BadHello",
            Self::Slow => "Slow",
            Self::Handshake => "Handshake",
        }
    }
}

#[derive(Default)]
struct Known {
    names: HashMap<String, Name>,
    /// Where controllers take TLS.
    port: Option<u16>,
}

/// What is known of a name.
enum Name {
    Passed(Key),
    /// The oldest tunnel's first.
    Ended(Vec<Candidate>),
}

/// A certificate that may be shown for a name.
struct Candidate {
    certificate: Arc<Certificate>,
    /// It names that name.
    is_for_it: bool,
}

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Names(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: RwLock<Arc<Known>>,
    /// In the order of [`Refusal::ALL`].
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Names {
    /// Goes on to a table and its certificates. Connections that are there go on as they began.
    pub fn take(&self, table: &Table, certificates: &Certificates) {
        let names = table.names.iter().map(|(name, named)| {
            let candidate = |key: &Key| {
                let tunnel = table.tunnels.get(key)?;
                let certificate = certificates.of(key, &tunnel.spec)?.ok()?;
                Some(Candidate {
                    is_for_it: certificate.is_for(name),
                    certificate,
                })
            };
            let known = match named {
                Named::Passed(key) => Name::Passed(key.clone()),
                Named::Ended(all) => Name::Ended(all.iter().filter_map(candidate).collect()),
            };
            (name.clone(), known)
        });
        let known = Arc::new(Known {
            names: names.collect(),
            port: table.tls_port,
        });
        *self.0.known.write().expect("no holder of the lock panics") = known;
    }

    fn known(&self) -> Arc<Known> {
        let known = self.0.known.read().expect("no holder of the lock panics");
        known.clone()
    }

    /// `name` in lower case. Where no certificate is good, its client is shown one that says why.
    pub fn find(&self, name: &str) -> Option<Door> {
        Some(match self.known().names.get(name)? {
            Name::Passed(key) => Door::Passed(key.clone()),
            Name::Ended(all) => {
                let now = Timestamp::now();
                let good = |it: &&Candidate| it.is_for_it && it.certificate.is_good_at(now);
                let shown = all.iter().find(good).or(all.first())?;
                Door::Ended(shown.certificate.clone())
            }
        })
    }

    /// Where somebody takes TLS, if there is a certificate for a name. Also one that has expired: who was sent there
    /// before is not to go on in the clear since a renewal failed.
    pub fn served_at(&self, name: &str) -> Option<u16> {
        let known = self.known();
        let Name::Ended(all) = known.names.get(name)? else {
            return None;
        };
        let now = Timestamp::now();
        let is_served = |it: &Candidate| it.is_for_it && it.certificate.has_begun(now);
        known.port.filter(|_| all.iter().any(is_served))
    }

    /// Whether this certificate is shown for a name.
    pub fn has(&self, name: &str, certificate: &Arc<Certificate>) -> bool {
        matches!(self.find(name), Some(Door::Ended(shown)) if Arc::ptr_eq(&shown, certificate))
    }

    pub fn count(&self, refusal: Refusal) {
        let index = Refusal::ALL.iter().position(|it| *it == refusal);
        if let Some(counter) = index.and_then(|index| self.0.refused.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By reason, since this controller began.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counters = self.0.refused.iter();
        let all = Refusal::ALL.iter().zip(counters);
        all.map(|(refusal, counter)| (refusal.reason(), counter.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use serde_json::json;

    use super::super::certificates::tests::{Authority, data, put};
    use super::*;
    use crate::fixture::declare;
    use crate::state::{Command, Member, State};

    /// Two tunnels of one host, each with a certificate, and one that is passed through.
    fn swarm() -> State {
        let mut state = State::default();
        let targets = json!([{ "node": "pi", "port": 443 }]);
        let ended = |secret: &str| {
            let http = json!({ "host": "a.example" });
            json!({ "http": http, "tls": { "secretName": secret }, "targets": targets })
        };
        let passed = json!({ "protocol": "TLS", "serverNames": ["b.example"], "targets": targets });
        for (name, spec) in [
            ("one", ended("first")),
            ("two", ended("second")),
            ("three", passed),
        ] {
            let key = Key::new(Resource::Tunnel, "default", name);
            declare(&mut state, key, json!({ "spec": spec }));
        }
        state
    }

    #[test]
    fn a_name_leads_to_targets_or_to_the_first_certificate_that_there_is() {
        let mut state = swarm();
        let (names, mut certificates) = (Names::default(), Certificates::default());
        let mut look = |state: &State| {
            certificates.follow(state);
            names.take(&Table::of(state), &certificates);
        };
        look(&state);
        assert!(names.find("a.example").is_none());
        assert!(names.find("c.example").is_none());
        let Some(Door::Passed(key)) = names.find("b.example") else {
            panic!("it is passed through");
        };
        assert_eq!(key.name, "three");

        let authority = Authority::create();
        let mut shown = Vec::new();
        for (secret, host, year) in [
            ("second", "a.example", 2130),
            ("first", "a.example", 2131),
            ("first", "a.example", 2132),
            // What is good goes first.
            ("first", "a.example", 2021),
            ("first", "b.example", 2133),
            ("second", "a.example", 2022),
        ] {
            let [certificate, key] = authority.issue(&[host], year);
            let fields = [("tls.crt", &*certificate), ("tls.key", &*key)];
            put(&mut state, secret, &data(&fields));
            look(&state);
            let Some(Door::Ended(certificate)) = names.find("a.example") else {
                panic!("there is a certificate");
            };
            assert!(names.has("a.example", &certificate));
            assert!(!names.has("b.example", &certificate));
            shown.push(certificate.expires.to_string()[..4].to_owned());
        }
        assert_eq!(shown, ["2130", "2131", "2132", "2130", "2130", "2133"]);
        // A broken one is none.
        put(&mut state, "first", &data(&[("tls.crt", "x")]));
        look(&state);
        let Some(Door::Ended(certificate)) = names.find("a.example") else {
            panic!("there is the second");
        };
        assert_eq!(&certificate.expires.to_string()[..4], "2022");
    }

    #[test]
    fn a_host_is_served_somewhere_once_it_has_a_certificate() {
        let mut state = swarm();
        let (names, mut certificates) = (Names::default(), Certificates::default());
        let mut look = |state: &State| {
            certificates.follow(state);
            names.take(&Table::of(state), &certificates);
            ["a.example", "b.example", "c.example"].map(|name| names.served_at(name))
        };
        let member = |tls: Option<&str>| Member {
            ingress: "192.0.2.1:80".into(),
            ingress_tls: tls.map(str::to_owned),
            ..Member::default()
        };
        let authority = Authority::create();
        let write = |state: &mut State, secret: &str, host: &str, year: i32| {
            let [certificate, key] = authority.issue(&[host], year);
            let fields = [("tls.crt", &*certificate), ("tls.key", &*key)];
            put(state, secret, &data(&fields));
        };
        let nowhere = [None; 3];
        for tls in [None, Some("192.0.2.2:8443"), Some("192.0.2.3:443")] {
            let member = member(tls);
            state.apply(Command::AdmitController { member }).unwrap();
        }
        assert_eq!(look(&state), nowhere);
        write(&mut state, "first", "b.example", 2130);
        assert_eq!(look(&state), nowhere);
        write(&mut state, "second", "a.example", 2130);
        let there = [Some(8443), None, None];
        assert_eq!(look(&state), there);
        write(&mut state, "second", "a.example", 2021);
        assert_eq!(look(&state), there, "it has expired");
        for id in [2, 3] {
            let member = member(None);
            let moved = Command::MoveController { id, member };
            state.apply(moved).unwrap();
        }
        assert_eq!(look(&state), nowhere);
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let names = Names::default();
        names.count(Refusal::Slow);
        names.count(Refusal::Slow);
        let counted: Vec<_> = names.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("Slow", 2)]);
    }
}
