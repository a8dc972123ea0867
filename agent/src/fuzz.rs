//! What controllers send and the agent's own files hold, damaged in every way.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use hive_fuzz::{Target, text};
use hive_identity::CertificateAuthority;
use hive_proto::desired::{EncodedAssignment, desired_hash};
use hive_proto::v1;
use hive_proto::v1::desired_entry::Kind;
use prost::Message;

use crate::controllers::ControllersFile;
use crate::desired::DesiredSet;
use crate::ids::Digest;
use crate::ledger::Ledger;
use crate::reconcile::wanted::{Host, wanted};
use crate::resources::parse;
use crate::serve::table::Table;

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

fn assignment(name: &str) -> v1::Assignment {
    v1::Assignment {
        namespace: "default".into(),
        name: name.into(),
        function: "hello".into(),
        function_generation: 3,
        env: [("A".to_owned(), "b".to_owned())].into(),
        limits: Some(v1::Limits::default()),
        artifact: Some(v1::CompiledArtifact {
            description: v1::ArtifactDescription::default().encode_to_vec(),
            signature: vec![7; 64],
        }),
        routes: vec![v1::Route {
            host: "a.example".into(),
            path: "/x".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn desired(names: &[&str]) -> v1::Desired {
    let encoded: Vec<_> = names
        .iter()
        .map(|name| EncodedAssignment::new(assignment(name)))
        .collect();
    v1::Desired {
        epoch: 1,
        generation: 7,
        hash: desired_hash(&encoded).to_vec(),
        entries: encoded
            .iter()
            .map(|assignment| v1::DesiredEntry {
                kind: Some(Kind::Assignment(assignment.encoded().clone())),
            })
            .collect(),
    }
}

/// Makes the hash that of the entries, where they can be read.
fn rehash(input: &mut Vec<u8>) {
    let Ok(mut message) = v1::Desired::decode(&input[..]) else {
        return;
    };
    let entries = message
        .entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            Some(Kind::Assignment(encoded)) => EncodedAssignment::decode(encoded.clone()).ok(),
            _ => None,
        });
    message.hash = desired_hash(&entries.collect::<Vec<_>>()).to_vec();
    *input = message.encode_to_vec();
}

/// From the controller and from the ledger: taken, vetted, routed.
#[test]
fn desired_sets_are_taken_or_refused() {
    let authority = CertificateAuthority::create("home").unwrap();
    let host = Host {
        ca: authority.certificate().clone(),
        target: "x86_64".to_owned(),
        wasmtime_version: "1".to_owned(),
        older_versions: Vec::new(),
    };
    let held = DesiredSet::decode(desired(&["hello-0"])).unwrap();
    Target::new("desired_set", |input: &[u8]| {
        let message = v1::Desired::decode(input).map_err(|error| error.to_string())?;
        let offered = held.succeed(message.clone());
        let set = DesiredSet::decode(message).map_err(|refused| refused.to_string())?;
        if let Ok(Some(next)) = offered {
            assert_eq!(next.hash, set.hash);
            assert!((next.epoch, next.generation) > (held.epoch, held.generation));
        }
        assert_eq!(DesiredSet::decode(set.encode()).unwrap().hash, set.hash);
        let mut table = Table::<u8>::default();
        for wanted in wanted(&set, &host) {
            assert!(wanted.artifact.is_err(), "nobody signed it");
            let assignment = &wanted.assignment;
            let trial = assignment.canary.then_some(&*assignment.revision);
            table.serve(wanted.function.clone(), trial, Arc::new(0));
            for route in &assignment.routes {
                table.add_route(&wanted.function, route);
                table.route(&route.host, "GET", &route.path);
            }
        }
        Ok::<_, String>(())
    })
    .seeds(
        [
            desired(&[]),
            desired(&["hello-0"]),
            desired(&["a", "b", "c"]),
        ]
        .map(|d| d.encode_to_vec()),
    )
    .repaired(rehash)
    .hold();
}

#[test]
fn digests_are_read_or_refused() {
    Target::new("digest", |input: &[u8]| {
        let by_bytes = Digest::from_slice(input);
        let text = text(input)?;
        let by_text = Digest::from_hex(text);
        if let Some(digest) = by_text {
            assert_eq!(digest.to_string(), text);
        }
        by_text
            .or(by_bytes)
            .map(|_| ())
            .ok_or("no digest".to_owned())
    })
    .seeds(["ab".repeat(32)])
    .at_most(256)
    .hold();
}

/// The whole file, as the database below reads it: sound, damaged, or empty; never wrong.
#[test]
fn ledgers_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let expected = DesiredSet::decode(desired(&["hello-0"])).unwrap();
    {
        let (ledger, _, _) = Ledger::open_or_start_over(dir.path()).unwrap();
        ledger.save_desired(&expected).unwrap();
    }
    let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap();
    let path = file.unwrap().path();
    let good = std::fs::read(&path).unwrap();
    // Changes to the file: place, then bytes. The file itself is too large to be an input.
    Target::new("ledger", |input: &[u8]| {
        let mut damaged = good.clone();
        for change in input.chunks(6) {
            let [a, b, c, rest @ ..] = change else { break };
            let place = u32::from_le_bytes([*a, *b, *c, 0]) as usize % damaged.len();
            let end = damaged.len().min(place + rest.len());
            damaged[place..end].copy_from_slice(&rest[..end - place]);
        }
        std::fs::write(&path, &damaged).map_err(|error| error.to_string())?;
        let opened = Ledger::open_or_start_over(dir.path());
        let (_, set, trouble) = opened.map_err(|error| error.to_string())?;
        let known = [expected.hash, DesiredSet::none().hash];
        assert!(known.contains(&set.hash), "what nobody ever wanted");
        trouble.map_or(Ok(()), |trouble| Err(trouble.to_string()))
    })
    .seeds([[0_u8; 3]])
    .words([[0, 16, 0, 9, 9, 9], [1, 0, 0, 1, 2, 3]])
    .at_most(60)
    .few()
    .hold();
}

#[test]
fn the_list_of_controllers_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = ControllersFile::in_dir(dir.path());
    file.save(&["a:1".to_owned()]).unwrap();
    let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap();
    let path = path.unwrap().path();
    Target::new("controllers", |input: &[u8]| {
        std::fs::write(&path, input).unwrap();
        let known = file.load().map_err(|error| error.to_string())?;
        assert!(
            known
                .iter()
                .all(|name| !name.is_empty() && !name.contains('\n'))
        );
        file.save(&known).unwrap();
        assert_eq!(file.load().unwrap(), known);
        Ok::<_, String>(())
    })
    .seeds(["a:1\n# moved\n\nb:2\n"])
    .words(["\n", "#", ":"])
    .at_most(1024)
    .few()
    .hold();
}

#[test]
fn what_the_kernel_says_is_read_or_passed_over() {
    Target::new("kernel", |input: &[u8]| {
        let text = text(input)?;
        let ticks = parse::cpu_ticks(text);
        if let Some(ticks) = ticks {
            parse::busy_millis(Default::default(), ticks, 4);
            parse::busy_millis(ticks, Default::default(), u32::MAX);
        }
        let memory = parse::kilobytes(text, "MemTotal");
        let network = parse::network_totals(text);
        let limit = parse::limit(text);
        let degrees = parse::degrees(text);
        let nothing = ticks.is_none() && memory.is_none() && limit.is_none() && degrees.is_none();
        match nothing && network == (0, 0) {
            true => Err("nothing".to_owned()),
            false => Ok(()),
        }
    })
    .seeds([
        "cpu  100 0 50 800 50 0 0 0 0 0\n",
        "MemTotal:       16384 kB\n",
        "  eth0: 100 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n wlan0:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n",
        "45000\n",
    ])
    .at_most(1024)
    .hold();
}
