#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn line(time: u64, text: &str) -> LogLine {
    LogLine {
        time_unix_ms: time,
        text: text.into(),
        ..Default::default()
    }
}

/// Of that generation, made of that.
fn version(generation: u64, content: u8) -> Version {
    Version {
        generation,
        content: Some(Digest([content; 32])),
    }
}

fn texts(reading: &Reading) -> Vec<&str> {
    reading.kept.iter().map(|line| &*line.text).collect()
}

fn read(ring: &mut Ring, request: LogRequest) -> Vec<String> {
    let reading = ring.read(&request);
    texts(&reading).into_iter().map(str::to_owned).collect()
}

fn halves(ring: &mut Ring) -> (Vec<String>, Vec<String>) {
    let previous = LogRequest {
        previous: true,
        ..Default::default()
    };
    (read(ring, previous), read(ring, LogRequest::default()))
}

#[test]
fn tail_and_since_choose_from_what_is_kept() {
    let mut ring = Ring::default();
    for (time, text) in [(1, "a"), (2, "b"), (3, "c")] {
        ring.push(version(1, 1), line(time, text));
    }
    let mut read = |tail, since_unix_ms| {
        let request = LogRequest {
            tail,
            since_unix_ms,
            ..Default::default()
        };
        read(&mut ring, request).concat()
    };
    assert_eq!(read(0, 0), "abc");
    assert_eq!(read(2, 0), "bc");
    assert_eq!(read(9, 3), "c");
}

#[test]
fn a_follower_gets_every_line_once() {
    let mut ring = Ring::default();
    ring.push(version(1, 1), line(1, "before"));
    let request = LogRequest {
        follow: true,
        ..Default::default()
    };
    let mut reading = ring.read(&request);
    ring.push(version(2, 2), line(2, "after"));
    ring.push(version(1, 1), line(2, "late"));
    assert_eq!(texts(&reading), ["before"]);
    let mut following = reading.following.take().unwrap();
    assert_eq!(following.try_recv().unwrap().text, "after");
    assert_eq!(following.try_recv().unwrap().text, "late");
    assert!(following.try_recv().is_err());
    drop(following);
    ring.push(version(2, 2), line(3, "unheard"));
    assert!(ring.followers.is_none());
}

#[test]
fn neither_lines_nor_bytes_grow_without_bound() {
    let mut ring = Ring::default();
    for n in 0..2 * KEPT_LINES {
        ring.push(version(1, 1), line(n as u64, "x"));
    }
    assert_eq!(ring.read(&LogRequest::default()).kept.len(), KEPT_LINES);
    let counted = |half: &Half| -> usize { half.lines.iter().map(|line| size(line)).sum() };
    for generation in 2..5 {
        for _ in 0..200 {
            let long = line(0, &"é".repeat(LINE_BYTES));
            ring.push(version(generation, generation as u8), long.clone());
            ring.push(version(1, 1), long);
        }
        assert!(ring.current.bytes <= KEPT_BYTES);
        assert!(ring.previous.bytes <= KEPT_PREVIOUS_BYTES);
        assert_eq!(counted(&ring.current), ring.current.bytes);
        assert_eq!(counted(&ring.previous), ring.previous.bytes);
    }
}

#[test]
fn what_a_version_said_is_previous_once_the_next_one_speaks() {
    /// Of a generation, made of that.
    type Speaker = (u64, u8);
    // Who speaks, and which lines are then previous and current.
    let cases: [(&str, &[Speaker], &str, &str); 7] = [
        ("one version", &[(1, 1), (1, 1)], "", "ab"),
        ("a change", &[(1, 1), (2, 2)], "a", "b"),
        (
            "the old one speaks late",
            &[(1, 1), (2, 2), (1, 1)],
            "ac",
            "b",
        ),
        ("two changes", &[(1, 1), (2, 2), (3, 3)], "b", "c"),
        (
            "more copies of the same",
            &[(1, 1), (2, 1), (1, 1)],
            "",
            "abc",
        ),
        ("undone", &[(1, 1), (2, 2), (3, 1)], "b", "c"),
        ("another secret", &[(1, 1), (1, 2)], "", "ab"),
    ];
    for (case, speakers, previous, current) in cases {
        let mut ring = Ring::default();
        for ((generation, content), text) in speakers.iter().zip(["a", "b", "c"]) {
            ring.push(version(*generation, *content), line(0, text));
        }
        let (was, is) = halves(&mut ring);
        assert_eq!(
            (was.concat(), is.concat()),
            (previous.into(), current.into()),
            "{case}"
        );
    }
}

#[test]
fn a_version_that_serves_and_says_nothing_is_the_current_one_all_the_same() {
    let mut ring = Ring::default();
    ring.push(version(1, 1), line(0, "a"));
    ring.serve(version(2, 2));
    assert_eq!(halves(&mut ring), (vec!["a".to_owned()], vec![]));
    // Another copy of the version before is still being replaced.
    ring.serve(version(1, 1));
    ring.push(version(1, 1), line(0, "b"));
    ring.serve(version(3, 3));
    let (previous, current) = halves(&mut ring);
    assert_eq!(
        (previous.concat(), current.concat()),
        ("ab".into(), String::new())
    );
    ring.serve(version(4, 3));
    ring.push(version(4, 3), line(0, "c"));
    let (previous, current) = halves(&mut ring);
    assert_eq!(
        (previous.concat(), current.concat()),
        ("ab".into(), "c".into())
    );
}

#[test]
fn versions_are_told_apart_by_what_they_are_made_of() {
    let first = Assignment {
        name: "hello.0".into(),
        uid: "u1".into(),
        function_generation: 1,
        allowed_hosts: vec!["a.example".into()],
        ..Default::default()
    };
    let copy = Assignment {
        name: "hello.1".into(),
        uid: "u2".into(),
        function_generation: 2,
        ..first.clone()
    };
    let changed = Assignment {
        allowed_hosts: vec![],
        ..first.clone()
    };
    assert!(Version::of(&first).is_same(Version::of(&copy)));
    assert!(!Version::of(&first).is_same(Version::of(&changed)));
}

#[test]
fn the_lines_of_one_request_or_trace_are_found_in_both_versions() {
    let mut ring = Ring::default();
    for (generation, id, trace, text) in [
        (1, "x", "t", "a"),
        (1, "y", "", "b"),
        (2, "x", "u", "c"),
        (2, "", "", "d"),
        (2, "v", "t", "e"),
    ] {
        let mut said = line(generation, text);
        said.request_id = id.to_owned();
        said.trace_id = trace.to_owned();
        ring.push(version(generation, generation as u8), said);
    }
    let mut of = |request_id: &str, previous, tail| {
        let request = LogRequest {
            request_id: request_id.to_owned(),
            previous,
            tail,
            ..Default::default()
        };
        read(&mut ring, request).concat()
    };
    assert_eq!(of("x", false, 0), "ac");
    assert_eq!(of("x", false, 1), "c");
    assert_eq!(of("x", true, 0), "a");
    assert_eq!(of("t", false, 0), "ae");
    assert_eq!(of("t", true, 0), "a");
    assert_eq!(of("z", false, 0), "");
}

#[test]
fn who_goes_on_in_another_log_gets_what_is_newer() {
    let mut ring = Ring::default();
    ring.push(version(1, 1), line(5, "old"));
    ring.push(version(1, 1), line(7, "new"));
    let request = LogRequest {
        log_id: ring.id + 2,
        after_sequence: 100,
        since_unix_ms: 6,
        ..Default::default()
    };
    assert_eq!(read(&mut ring, request), ["new"]);
}

proptest! {
    /// Whoever reads in pieces, each from where the last one ended, has every line once and in order,
    /// whichever versions spoke meanwhile.
    #[test]
    fn however_reads_are_cut_every_line_comes_once(
        pieces in prop::collection::vec((1u64..4, 0u8..3, 0usize..4), 1..20),
    ) {
        let mut ring = Ring::default();
        let (mut said, mut got) = (Vec::new(), Vec::new());
        let mut request = LogRequest { log_id: ring.id, ..Default::default() };
        for (generation, content, lines) in pieces {
            for _ in 0..lines {
                // All at one time: only the order tells them apart.
                let text = said.len().to_string();
                ring.push(version(generation, content), line(1, &text));
                said.push(text);
            }
            for line in ring.read(&request).kept {
                request.after_sequence = line.sequence;
                got.push(line.text.clone());
            }
        }
        prop_assert_eq!(got, said);
    }
}
