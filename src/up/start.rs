//! Starting the members in order, and waiting until each is where it should be.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use hive_controller::access::tokens::{TokenKind, token_object};
use hive_controller::kubeconfig::kubeconfig;
use hive_identity::{CaCertificate, JoinToken};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::Members;
use super::layout::{AgentSeat, ControllerSeat, Layout, loopback};
use super::member::{Member, run_once};
use super::progress::Progress;

/// A debug build on a busy board takes its time; what takes longer has failed.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at a member that is not ready yet.
const POLL: Duration = Duration::from_millis(100);

/// Join tokens of a local swarm are used at once.
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// On loopback nothing gets lost: a dead member is found in seconds.
const TIMING: [&str; 6] = [
    "--node-grace",
    "5s",
    "--link-keep-alive",
    "1s",
    "--link-idle-timeout",
    "4s",
];

/// Says which port is taken, before anything is started.
pub fn check_ports(layout: &Layout) -> anyhow::Result<()> {
    for need in layout.needs() {
        let address = loopback(need.port);
        let free = match need.udp {
            false => TcpListener::bind(&address).map(drop),
            true => UdpSocket::bind(&address).map(drop),
        };
        if let Err(error) = free {
            bail!(
                "port {} ({}) cannot be used: {error}. Stop what uses it, or choose other ports with --base-port",
                need.port,
                need.purpose
            );
        }
    }
    Ok(())
}

pub async fn start(layout: &Layout, members: &mut Members) -> anyhow::Result<()> {
    let controllers = layout.controllers.iter().map(|seat| seat.name.clone());
    let agents = layout.agents.iter().map(|seat| seat.name.clone());
    let progress = Progress::new(controllers.chain(agents));
    let started = start_members(layout, members, &progress).await;
    progress.finish();
    started
}

async fn start_members(
    layout: &Layout,
    members: &mut Members,
    progress: &Progress,
) -> anyhow::Result<()> {
    let resumed = layout.kubeconfig().exists();
    if resumed {
        // A majority must be up before any of them is ready.
        for seat in &layout.controllers {
            run_controller(layout, seat, members, progress)?;
        }
        for seat in &layout.controllers {
            controller_ready(layout, seat, members, progress).await?;
        }
    } else {
        make_swarm(layout, members, progress).await?;
    }
    let client = client(&layout.kubeconfig(), None).await?;
    let joining = layout
        .agents
        .iter()
        .filter(|seat| !seat.dir.join("node.crt").exists());
    let uses = joining.count() as u64;
    let token = match uses {
        0 => None,
        uses => Some(create_token(&client, layout, TokenKind::Join, uses).await?),
    };
    // What a node's object says before its agent runs is of the last time.
    let mut sessions = Vec::new();
    for seat in &layout.agents {
        sessions.push(session(&client, seat).await?);
    }
    for seat in &layout.agents {
        progress.doing(&seat.name, "joining");
        let member = start_agent(layout, seat, token.as_ref())?;
        members.add(member)?;
    }
    for (seat, last) in layout.agents.iter().zip(&sessions) {
        node_ready(&client, seat, last.as_deref(), members, progress).await?;
    }
    Ok(())
}

async fn make_swarm(
    layout: &Layout,
    members: &mut Members,
    progress: &Progress,
) -> anyhow::Result<()> {
    let Some((first, others)) = layout.controllers.split_first() else {
        bail!("a swarm needs a controller");
    };
    // What an attempt that failed before the swarm was usable left behind is of no use.
    for dir in layout
        .controllers
        .iter()
        .map(|s| &s.dir)
        .chain(layout.agents.iter().map(|s| &s.dir))
    {
        if dir.exists() {
            std::fs::remove_dir_all(dir)
                .with_context(|| format!("cannot clear {}", dir.display()))?;
        }
    }
    progress.doing(&first.name, "making the swarm");
    let mut init = arguments(["controller", "init"], first);
    init.extend(["--cluster", "local"].map(str::to_owned));
    run_once(&init, &[])
        .await
        .with_context(|| format!("cannot make {}", first.name))?;
    run_controller(layout, first, members, progress)?;
    controller_ready(layout, first, members, progress).await?;

    let client = client(&first.dir.join("kubeconfig"), None).await?;
    if !others.is_empty() {
        let uses = others.len() as u64;
        let token = create_token(&client, layout, TokenKind::ControllerJoin, uses).await?;
        for seat in others {
            progress.doing(&seat.name, "joining");
            let mut join = arguments(["controller", "join"], seat);
            join.extend(["--controllers".to_owned(), loopback(first.link)]);
            run_once(&join, &[("HIVE_TOKEN", token.to_string())])
                .await
                .with_context(|| format!("{} cannot join", seat.name))?;
            run_controller(layout, seat, members, progress)?;
            controller_ready(layout, seat, members, progress).await?;
        }
    }
    write_kubeconfig(layout, first)
}

fn arguments(action: [&str; 2], seat: &ControllerSeat) -> Vec<String> {
    let mut arguments: Vec<String> = action.map(str::to_owned).into();
    arguments.extend(["--data-dir".to_owned(), seat.dir.display().to_string()]);
    for (flag, port) in [
        ("--link-port", seat.link),
        ("--api-port", seat.api),
        ("--ingress-port", seat.ingress),
    ] {
        arguments.extend([flag.to_owned(), port.to_string()]);
    }
    arguments
}

fn run_controller(
    layout: &Layout,
    seat: &ControllerSeat,
    members: &mut Members,
    progress: &Progress,
) -> anyhow::Result<()> {
    progress.doing(&seat.name, "starting");
    let mut arguments: Vec<String> = ["controller", "run"].map(str::to_owned).into();
    arguments.extend(["--data-dir".to_owned(), seat.dir.display().to_string()]);
    // Of a swarm from before there was one, too.
    let tls = [
        "--ingress-tls-port".to_owned(),
        seat.ingress_tls.to_string(),
    ];
    arguments.extend(tls);
    arguments.extend(TIMING.map(str::to_owned));
    let member = Member::start(&seat.name, &arguments, &[], &layout.log(&seat.name))?;
    members.add(member)
}

fn start_agent(
    layout: &Layout,
    seat: &AgentSeat,
    token: Option<&JoinToken>,
) -> anyhow::Result<Member> {
    let arguments = [
        "agent",
        "--data-dir",
        &seat.dir.display().to_string(),
        "--name",
        &seat.name,
        "--listen",
        &loopback(seat.listen),
        "--controllers",
        &layout.links(),
    ]
    .map(str::to_owned);
    // In the environment: a command line can be read by everyone on the machine.
    let environment: Vec<_> = token
        .map(|token| ("HIVE_TOKEN", token.to_string()))
        .into_iter()
        .collect();
    Member::start(
        &seat.name,
        &arguments,
        &environment,
        &layout.log(&seat.name),
    )
}

/// The administrator's token that `init` made, with all controllers as servers.
fn write_kubeconfig(layout: &Layout, first: &ControllerSeat) -> anyhow::Result<()> {
    let path = first.dir.join("kubeconfig");
    let made: serde_json::Value = std::fs::read(&path)
        .map_err(anyhow::Error::new)
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let token = made["users"][0]["user"]["token"]
        .as_str()
        .context("the kubeconfig of the first controller has no token")?;
    let ca = swarm_ca(layout)?;
    let config = kubeconfig(&ca, &layout.apis(), "admin", token);
    let text = serde_json::to_vec_pretty(&config)?;
    hive_identity::store::save_private(&layout.kubeconfig(), &text)?;
    Ok(())
}

fn swarm_ca(layout: &Layout) -> anyhow::Result<CaCertificate> {
    let path = layout.controllers[0].dir.join("identity/ca.crt");
    let pem = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(CaCertificate::from_pem(&pem)?)
}

/// A client of the API; of one controller in particular where `server` names it.
pub async fn client(kubeconfig: &Path, server: Option<u16>) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    if let Some(port) = server {
        config.cluster_url = format!("https://{}", loopback(port)).parse()?;
    }
    Ok(Client::try_from(config)?)
}

async fn create_token(
    client: &Client,
    layout: &Layout,
    kind: TokenKind,
    uses: u64,
) -> anyhow::Result<JoinToken> {
    let token = JoinToken::generate(swarm_ca(layout)?.fingerprint());
    let expiry = SystemTime::now() + TOKEN_LIFETIME;
    let (key, body) = token_object(&token.secret, kind, None, Some(expiry), Some(uses));
    let secrets = Api::<DynamicObject>::namespaced_with(
        client.clone(),
        &key.namespace,
        &ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret")),
    );
    secrets
        .create(&Default::default(), &serde_json::from_value(body)?)
        .await
        .context("cannot make a join token")?;
    Ok(token)
}

async fn controller_ready(
    layout: &Layout,
    seat: &ControllerSeat,
    members: &mut Members,
    progress: &Progress,
) -> anyhow::Result<()> {
    let own = seat.dir.join("kubeconfig");
    let kubeconfig = match layout.kubeconfig().exists() || !own.exists() {
        true if layout.kubeconfig().exists() => layout.kubeconfig(),
        _ => layout.controllers[0].dir.join("kubeconfig"),
    };
    let client = client(&kubeconfig, Some(seat.api)).await?;
    wait(members, &seat.name, async || {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        client.request_text(request).await?;
        Ok(true)
    })
    .await?;
    progress.done(
        &seat.name,
        &format!("ready    API https://{}", loopback(seat.api)),
    );
    Ok(())
}

fn nodes(client: &Client) -> Api<DynamicObject> {
    Api::all_with(
        client.clone(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk("hive.dev", "v1", "Node")),
    )
}

/// The session that a node's object names, if there is one.
async fn session(client: &Client, seat: &AgentSeat) -> anyhow::Result<Option<String>> {
    let node = nodes(client).get_opt(&seat.name).await?;
    Ok(node.and_then(|node| session_of(&node)))
}

fn session_of(node: &DynamicObject) -> Option<String> {
    node.data["status"]["session"].as_str().map(str::to_owned)
}

/// Waits until the agent has begun a session after the `last` one and its node is Ready.
async fn node_ready(
    client: &Client,
    seat: &AgentSeat,
    last: Option<&str>,
    members: &mut Members,
    progress: &Progress,
) -> anyhow::Result<()> {
    let nodes = nodes(client);
    wait(members, &seat.name, async || {
        let Some(node) = nodes.get_opt(&seat.name).await? else {
            return Ok(false);
        };
        let ready = hive_controller::objects::condition(&node.data, "Ready") == Some("True");
        Ok(ready && session_of(&node).as_deref() != last)
    })
    .await?;
    progress.done(
        &seat.name,
        &format!("ready    functions at http://{}", loopback(seat.listen)),
    );
    Ok(())
}

/// Asks until the answer is yes, a member dies, or it takes too long; the last error is told.
async fn wait(
    members: &mut Members,
    name: &str,
    mut ready: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut last = None;
    let asking = async {
        loop {
            match ready().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(READY_TIMEOUT, asking) => outcome,
        error = members.died() => return Err(error),
    };
    if outcome.is_err() {
        let why = last.map_or_else(String::new, |error| format!(": {error:#}"));
        bail!(
            "{name} was not ready within {} s{why}",
            READY_TIMEOUT.as_secs()
        );
    }
    Ok(())
}
