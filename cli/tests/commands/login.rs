//! login and get-token, as far as they come without an issuer; `people` in e2e/tests has one.

use crate::harness::Swarm;

const FLAGS: [&str; 2] = [
    "--oidc-issuer-url=https://127.0.0.1:1/realm",
    "--oidc-client-id=hive",
];

#[tokio::test]
async fn who_is_not_signed_in_learns_how() {
    let swarm = Swarm::start().await;
    let run = swarm
        .run(
            &[
                &["get-token"],
                &FLAGS[..],
                &["--oidc-extra-scope=email,groups"],
            ]
            .concat(),
        )
        .await;
    run.expect(
        1,
        "",
        "error: nobody is signed in\n  sign in: hivectl login --oidc-issuer-url=https://127.0.0.1:1/realm \
         --oidc-client-id=hive --oidc-extra-scope=email --oidc-extra-scope=groups\n",
    );
}

/// The secret stands neither in what is said nor in what is to be typed.
#[tokio::test]
async fn a_client_s_secret_is_not_repeated() {
    let swarm = Swarm::start().await;
    for command in ["get-token", "login"] {
        let secret = ["--oidc-client-secret=t0psecret"];
        let run = swarm.run(&[&[command], &FLAGS[..], &secret].concat()).await;
        assert_eq!(run.code, 1, "{}", run.err);
        assert!(!run.err.contains("t0psecret"), "{}", run.err);
    }
}

#[tokio::test]
async fn a_sign_in_that_comes_to_nothing_changes_nothing() {
    let swarm = Swarm::start().await;
    let before = std::fs::read(swarm.kubeconfig()).unwrap();
    let plain = [
        "--oidc-issuer-url=http://127.0.0.1:1",
        "--oidc-client-id=hive",
    ];
    for (flags, code, said) in [
        (
            &FLAGS[..],
            1,
            "https://127.0.0.1:1/realm/.well-known/openid-configuration cannot be reached",
        ),
        (&FLAGS[..], 1, "is --oidc-issuer-url right?"),
        (
            &plain[..],
            1,
            "an https URL without query and fragment is needed",
        ),
        (&["--oidc-client-id=hive"], 2, "--oidc-issuer-url <URL>"),
    ] {
        let run = swarm.run(&[&["login"], flags].concat()).await;
        assert_eq!((run.code, run.out.as_str()), (code, ""), "{}", run.err);
        assert!(run.err.contains(said), "{}", run.err);
    }
    let missing = ["login", "--oidc-ca-file=/does/not/exist"];
    let run = swarm.run(&[&missing, &FLAGS[..]].concat()).await;
    assert!(
        run.err.starts_with("error: cannot read /does/not/exist: "),
        "{}",
        run.err
    );
    let both = ["login", "--device", "--redirect-port=1"];
    assert_eq!(swarm.run(&[&both, &FLAGS[..]].concat()).await.code, 2);
    let elsewhere = ["login", "--context=nowhere"];
    let run = swarm.run(&[&elsewhere, &FLAGS[..]].concat()).await;
    assert!(run.err.contains("no context \"nowhere\""), "{}", run.err);

    assert_eq!(std::fs::read(swarm.kubeconfig()).unwrap(), before);
    assert!(!swarm.dir.path().join("cache").exists());
}

#[tokio::test]
async fn completion_knows_both_commands() {
    let swarm = Swarm::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let run = swarm.run(&["completion", shell]).await;
        for word in ["login", "get-token", "oidc-issuer-url", "redirect-port"] {
            assert!(run.out.contains(word), "{shell} lacks {word}");
        }
    }
}
