//! The function that a new swarm starts with. It is part of this program: an installed `hive`
//! has no source tree around it.

use std::time::Duration;

use anyhow::{Context, bail};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};

use super::layout::Layout;
use super::start;

const COMPONENT: &[u8] = include_bytes!("../../manifests/examples/hello/hello.wasm");
const MANIFEST: &str = include_str!("../../manifests/examples/hello/function.yaml");

/// Includes the compilation on a slow board.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// Deploys the example and waits until it answers; its URL.
pub async fn deploy(layout: &Layout) -> anyhow::Result<String> {
    let dir = layout.data_dir.join("examples/hello");
    let manifest = dir.join("function.yaml");
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(dir.join("hello.wasm"), COMPONENT))
        .and_then(|()| std::fs::write(&manifest, MANIFEST))
        .with_context(|| format!("cannot write {}", dir.display()))?;
    hive_cli::apply_file(&layout.kubeconfig(), &manifest)
        .await
        .context("the example could not be deployed")?;
    let client = start::client(&layout.kubeconfig(), None).await?;
    let functions = Api::<DynamicObject>::namespaced_with(
        client,
        "default",
        &ApiResource::from_gvk(&GroupVersionKind::gvk("hive.dev", "v1", "Function")),
    );
    let mut why = String::new();
    let ready = async {
        loop {
            let status = match functions.get("hello").await {
                Ok(function) => function.data["status"].clone(),
                Err(error) => {
                    why = error.to_string();
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            };
            why = status["conditions"].to_string();
            if status["replicas"].as_u64().is_some_and(|wanted| wanted > 0)
                && status["readyReplicas"] == status["replicas"]
            {
                return status["url"].as_str().unwrap_or_default().to_owned();
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(READY_TIMEOUT, ready).await {
        Ok(url) => Ok(url),
        Err(_) => bail!(
            "the example was not ready within {} s: {why}",
            READY_TIMEOUT.as_secs()
        ),
    }
}
