//! What controllers in Rust are written with (`kube::runtime`) on a swarm: cases, run in this order.
//!
//! Usage: hive-e2e-client KUBECONFIG

mod runtime;

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ObjectMeta;
use kube::{Api, Client, Config};

const SPACE: &str = "kube-runtime";

#[tokio::main]
async fn main() -> ExitCode {
    let file = std::env::args().nth(1).expect("a kubeconfig");
    let kubeconfig = Kubeconfig::read_from(file).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let client = Client::try_from(config.expect("a context")).expect("a client");

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let space = Namespace {
        metadata: ObjectMeta {
            name: Some(SPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let made = namespaces.create(&PostParams::default(), &space).await;
    made.expect("a namespace");
    let failed = runtime::cases(client).await;
    let gone = namespaces.delete(SPACE, &DeleteParams::default()).await;
    gone.expect("the namespace goes");
    match failed {
        0 => ExitCode::SUCCESS,
        failed => {
            eprintln!("{failed} cases failed");
            ExitCode::FAILURE
        }
    }
}
