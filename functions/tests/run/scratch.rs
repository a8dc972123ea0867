//! A directory for each instance: what it may do there, how much of it, and that it goes.

use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use hive_functions::{FunctionOptions, Instances, LogStream, Reason, Reuse, Scratch, ScratchSpace};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{
    guests::{Loaded, TIMEOUT, compiled, eventually, get_of, limits, load_compiled, options},
    sandbox::PROBE,
};

pub static SERVICES_0_3: LazyLock<Vec<u8>> =
    LazyLock::new(|| compiled(include_bytes!("../guests/services-p3/services_p3.wasm")));

const KIB: u64 = 1024;
/// Files of 60 KiB, with their entry, leave none of it.
const LIMIT: u64 = 64 * KIB;

struct Node {
    directory: tempfile::TempDir,
    space: ScratchSpace,
    free: Arc<AtomicU64>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1 << 40));
        let space = ScratchSpace::start(directory.path().to_owned(), {
            let free = free.clone();
            move || Ok(free.load(Ordering::Relaxed))
        });
        Self {
            directory,
            space: space.unwrap(),
            free,
        }
    }

    /// A function with so many bytes for each instance.
    fn load(&self, code: &[u8], size_limit: u64) -> Loaded {
        load_compiled(code, |logs| {
            let mut options: FunctionOptions = options(limits(), logs);
            options.services.scratch = Some(self.given(size_limit));
            options
        })
    }

    fn given(&self, size_limit: u64) -> Scratch {
        Scratch {
            space: self.space.clone(),
            size_limit,
        }
    }

    fn probe(&self, size_limit: u64) -> Loaded {
        self.load(&PROBE, size_limit)
    }

    fn left(&self) -> Vec<PathBuf> {
        let entries = self.directory.path().read_dir().unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

async fn answer(loaded: &Loaded, target: &str) -> String {
    let response = loaded.function.handle(get_of(target)).await.unwrap();
    assert_eq!(response.status(), 200, "{target}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// What one instance does, one thing after the other, and what came of each.
async fn steps(loaded: &Loaded, steps: &[&str]) -> Vec<String> {
    let encoded = steps.iter().map(|step| {
        let step = step.replace('%', "%25").replace('&', "%26");
        format!("do={}", step.replace('=', "%3D").replace('?', "%3F"))
    });
    let target = format!("/steps?{}", encoded.collect::<Vec<_>>().join("&"));
    let answer = answer(loaded, &target).await;
    let lines: Vec<_> = answer.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), steps.len(), "{answer}");
    lines
}

/// Each of these steps, and how what came of it begins.
async fn all(loaded: &Loaded, expected: &[(&str, &str)]) {
    let asked: Vec<_> = expected.iter().map(|(step, _)| *step).collect();
    let found = steps(loaded, &asked).await;
    for ((step, expected), found) in expected.iter().zip(&found) {
        assert!(found.starts_with(expected), "{step}: {found}");
    }
}

#[tokio::test]
async fn a_directory_is_there_for_the_instance_and_goes_with_it() {
    let node = Node::new();
    let probe = node.probe(LIMIT);
    assert_eq!(answer(&probe, "/directories").await, "given [\"/tmp\"]\n");
    for _ in 0..3 {
        all(
            &probe,
            &[
                ("/dir?path=/tmp", "listed []"),
                ("/write?path=/tmp/a&text=hello", "wrote 5 bytes"),
                ("/at?how=directory&path=b", "made a directory"),
                ("/at?how=stream&path=b/c&kib=3", "wrote 3072 bytes"),
                ("/at?how=append&path=b/c&kib=2", "wrote 2048 bytes"),
                ("/fs?path=/tmp/b/c", "opened 5120 bytes"),
                ("/at?how=rename&path=b/c&to=c", "renamed"),
                ("/dir?path=/tmp", "listed [\"a\", \"b\", \"c\"]"),
            ],
        )
        .await;
    }
    eventually("nothing is left", || node.left().is_empty()).await;
}

/// The instance would stay for ten minutes: what removes its directory is how it ended.
#[tokio::test]
async fn it_goes_with_an_instance_that_is_stopped() {
    const STAYS: Duration = Duration::from_secs(600);
    const SOON: Duration = Duration::from_secs(120);
    const ENDING: Duration = Duration::from_secs(3);
    let node = Node::new();
    for (path, reason) in [
        ("/trap", Reason::Trap),
        ("/exit", Reason::Trap),
        ("/memory?mib=100", Reason::MemoryLimit),
        ("/spin", Reason::Timeout),
    ] {
        let probe = load_compiled(&PROBE, |logs| {
            let mut options: FunctionOptions = options(limits(), logs);
            if reason == Reason::Timeout {
                options.limits.timeout = TIMEOUT;
            }
            options.instances = Instances {
                reuse: Some(Reuse::Serial),
                idle_timeout: STAYS,
                ..Instances::default()
            };
            options.services.scratch = Some(node.given(LIMIT));
            options
        });
        let wrote = answer(&probe, "/at?how=write&path=a&kib=4").await;
        assert_eq!(wrote, "wrote 4096 bytes\n");
        let [directory] = &*node.left() else {
            panic!("{:?}", node.left());
        };
        assert!(directory.join("a").is_file());
        // The instance may not be ready for another request yet: then one of its own is stopped.
        let deadline = Instant::now() + SOON;
        while !node.left().is_empty() {
            assert!(Instant::now() < deadline, "{path}: {:?}", node.left());
            let stopped = probe.function.handle(get_of(path)).await;
            let error = stopped.map(drop).unwrap_err();
            assert_eq!(error.reason(), reason, "{path}: {error}");
            // Whoever waited too long is told before the instance has ended.
            let ended = eventually("it ends", || node.left().is_empty());
            let _ = timeout(ENDING, ended).await;
        }
    }
}

/// It runs all the same: many ask for directories and need none.
#[tokio::test]
async fn who_gets_none_is_told_why() {
    let node = Node::new();
    std::fs::remove_dir(node.directory.path()).unwrap();
    let probe = node.probe(LIMIT);
    assert_eq!(answer(&probe, "/directories").await, "given []\n");
    let told = probe.logs.of(LogStream::Hive);
    assert!(told[0].starts_with("there is no /tmp: "), "{told:?}");
    std::fs::create_dir(node.directory.path()).unwrap();
}

#[tokio::test]
async fn instances_at_once_see_only_their_own() {
    let node = Node::new();
    let probe = &node.probe(LIMIT);
    let one = |n: usize| async move {
        let (name, text) = (format!("/write?path=/tmp/{n}"), format!("listed [\"{n}\"]"));
        all(probe, &[(&name, "wrote"), ("/dir?path=/tmp", &text)]).await;
    };
    join_all((0..40).map(one)).await;
    eventually("nothing is left", || node.left().is_empty()).await;
}

/// Whatever way it is written: what fits is written, and a byte more is not.
#[tokio::test]
async fn the_quota_is_exact_and_says_what_to_raise() {
    let node = Node::new();
    for (how, refused) in [
        ("write", "refused after 0 bytes: insufficient-space"),
        ("stream", "refused after 60 KiB: "),
        ("append", "refused after 60 KiB: "),
        ("size", "refused insufficient-space"),
    ] {
        let probe = node.probe(LIMIT);
        let fits = format!("/at?path=a&kib=60&how={how}");
        let more = format!("/at?path=a&kib=61&how={how}");
        let done = answer(&probe, &fits).await;
        assert!(done.contains("61440 bytes"), "{how}: {done}");
        assert_eq!(probe.logs.of(LogStream::Hive), Vec::<String>::new());

        let answer = answer(&probe, &more).await;
        assert!(answer.starts_with(refused), "{how}: {answer}");
        let told = probe.logs.of(LogStream::Hive);
        let reason =
            "65536 bytes are all that an instance may keep in /tmp: raise spec.scratch.sizeLimit";
        assert_eq!(told, [reason]);
    }
}

#[tokio::test]
async fn what_is_removed_gives_its_room_back() {
    let node = Node::new();
    let probe = node.probe(LIMIT);
    all(
        &probe,
        &[
            ("/at?how=write&path=a&kib=60", "wrote"),
            // The same bytes again are no more of them.
            ("/at?how=write&path=a&kib=60", "wrote"),
            ("/at?how=write&path=b&kib=1", "refused"),
            ("/at?how=remove&path=a", "removed"),
            ("/at?how=stream&path=b&kib=60", "wrote"),
            ("/at?how=size&path=b&kib=1", "made"),
            ("/at?how=append&path=c&kib=40", "wrote"),
            ("/at?how=rename&path=b&to=c", "renamed"),
            ("/at?how=write&path=d&kib=50", "wrote"),
        ],
    )
    .await;
}

/// Bytes without a name, names for the same bytes, and bytes that nobody wrote.
#[tokio::test]
async fn what_cannot_be_seen_counts_as_well() {
    let node = Node::new();
    let probe = node.probe(LIMIT);
    all(
        &probe,
        &[
            ("/at?how=hide&path=a&kib=40", "wrote"),
            ("/at?how=write&path=b&kib=30", "refused"),
            ("/at?how=write&path=b&kib=10", "wrote"),
        ],
    )
    .await;
    all(
        &probe,
        &[
            ("/at?how=write&path=a&kib=48", "wrote"),
            ("/at?how=link&to=a&path=b", "linked"),
            ("/at?how=link&to=a&path=c", "linked"),
            ("/at?how=link&to=a&path=d", "linked"),
            ("/at?how=link&to=a&path=e", "refused"),
        ],
    )
    .await;
    all(
        &probe,
        &[
            ("/at?how=size&path=a&kib=60", "made"),
            ("/at?how=write&path=a&kib=60", "wrote"),
            ("/at?how=symlink&to=a&path=b", "refused"),
        ],
    )
    .await;
}

#[tokio::test]
async fn files_directories_and_what_is_open_are_bounded() {
    let node = Node::new();
    let probe = node.probe(1 << 30);
    assert_eq!(
        answer(&probe, "/at?how=open&path=a&count=40").await,
        "refused after 32: insufficient-memory\n"
    );
    // Closed again, they are open no longer.
    let often = ["/at?how=open&path=a&count=32"; 5];
    for line in steps(&probe, &often).await {
        assert_eq!(line, "opened 32 times");
    }
    assert_eq!(probe.logs.of(LogStream::Hive).len(), 1);

    let deeper = |n: usize| format!("/at?how=directory&path={}", vec!["d"; n].join("/"));
    let made: Vec<_> = (1..=65).map(deeper).collect();
    let made: Vec<_> = made.iter().map(String::as_str).collect();
    let outcomes = steps(&probe, &made).await;
    assert!(outcomes[..64].iter().all(|it| it == "made a directory"));
    assert_eq!(outcomes[64], "refused insufficient-space");

    let links = |n: usize| format!("/at?how=link&to=a&path={n}");
    let mut made = vec!["/at?how=write&path=a".to_owned()];
    made.extend((1..=1000).map(links));
    let made: Vec<_> = made.iter().map(String::as_str).collect();
    let outcomes = steps(&probe, &made).await;
    assert!(outcomes[1..1000].iter().all(|it| it == "linked"));
    assert_eq!(outcomes[1000], "refused insufficient-space");
    eventually("nothing is left", || node.left().is_empty()).await;
}

#[tokio::test]
async fn no_way_leads_out_of_the_directory() {
    let node = Node::new();
    let probe = node.probe(LIMIT);
    let outside = node.directory.path().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    let absolute = outside.display();
    let mut refused = vec![
        "/fs?path=/etc/passwd".to_owned(),
        "/fs?path=/tmp/../outside".to_owned(),
        "/dir?path=/tmp/..".to_owned(),
        "/dir?path=/".to_owned(),
        format!("/at?how=symlink&to={absolute}&path=link"),
        format!("/at?how=link&to={absolute}&path=link"),
        "/at?how=link&to=../outside&path=link".to_owned(),
        "/at?how=rename&path=../outside&to=own".to_owned(),
    ];
    for path in [
        "../outside",
        "d/../../outside",
        "/etc/passwd",
        &absolute.to_string(),
    ] {
        for how in ["read", "write", "open", "size", "remove", "directory"] {
            refused.push(format!("/at?how={how}&path={path}"));
        }
    }
    let mut expected = vec![("/at?how=directory&path=d", "made a directory")];
    expected.extend(refused.iter().map(|step| (&**step, "refused ")));
    // A link may say it, nobody can follow it.
    expected.extend([
        ("/at?how=symlink&to=../outside&path=up", "linked"),
        ("/at?how=read&path=up", "refused "),
        ("/at?how=write&path=up", "refused "),
        ("/at?how=size&path=up", "refused "),
        ("/fs?path=/tmp/up", "refused "),
        ("/at?how=symlink&to=..&path=parent", "linked"),
        ("/at?how=read&path=parent/outside", "refused "),
        ("/at?how=rename&path=d&to=parent/own", "refused "),
    ]);
    all(&probe, &expected).await;
    assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
    eventually("only that is left", || node.left() == [outside.clone()]).await;
}

/// Together they have a tenth of what is free, whatever each of them may have.
#[tokio::test]
async fn the_disk_of_the_node_is_shared() {
    let node = Node::new();
    let probe = node.probe(1 << 20);
    node.free.store(1000 * KIB, Ordering::Relaxed);
    let large = "/at?how=write&path=a&kib=97";
    let refused = answer(&probe, large).await;
    assert_eq!(refused, "refused after 0 bytes: insufficient-space\n");
    let told = probe.logs.of(LogStream::Hive);
    assert!(
        told[0].starts_with("DiskFull: the disk of the node"),
        "{told:?}"
    );
    // What one had is another's once its directory is gone.
    for _ in 0..5 {
        let deadline = Instant::now() + Duration::from_secs(60);
        while answer(&probe, "/at?how=write&path=a&kib=96").await != "wrote 98304 bytes\n" {
            assert!(Instant::now() < deadline, "it is never given back");
        }
    }
}

#[tokio::test]
async fn wasi_0_3_has_the_same_directory_and_the_same_bounds() {
    let node = Node::new();
    let files = node.load(&SERVICES_0_3, LIMIT);
    let outside = node.directory.path().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    all(
        &files,
        &[
            ("at?how=directory&path=d", "made a directory"),
            ("at?how=stream&path=a&kib=30", "wrote 30720 bytes"),
            ("at?how=append&path=a&kib=10", "wrote 10240 bytes"),
            ("at?how=read&path=a", "read 40960 bytes"),
            (
                "at?how=stream&path=b&kib=20",
                "refused ErrorCode::InsufficientSpace",
            ),
            (
                "at?how=append&path=c&kib=20",
                "refused ErrorCode::InsufficientSpace",
            ),
            (
                "at?how=size&path=a&kib=60",
                "refused ErrorCode::InsufficientSpace",
            ),
            ("at?how=remove&path=a", "removed"),
            ("at?how=rename&path=b&to=e", "renamed"),
            ("at?how=append&path=e&kib=8", "wrote 8192 bytes"),
            ("at?how=link&to=e&path=f", "linked"),
            ("at?how=symlink&to=e&path=g", "linked"),
            (
                "at?how=open&path=e&count=40",
                "opened 32 times, then ErrorCode::InsufficientMemory",
            ),
            ("at?how=size&path=a&kib=1", "made it 1024 bytes"),
            ("at?how=read&path=../outside", "refused "),
            ("at?how=symlink&to=../outside&path=up", "linked"),
            ("at?how=append&path=up", "refused "),
            ("at?how=read&path=/etc/passwd", "refused "),
        ],
    )
    .await;
    let told = files.logs.of(LogStream::Hive);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
    eventually("only that is left", || node.left() == [outside.clone()]).await;

    let many = ["at?how=directory&path=a"; 2];
    assert!(steps(&files, &many).await[1].starts_with("refused ErrorCode::Exist"));
}
