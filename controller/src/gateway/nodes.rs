//! Which nodes this controller is linked to, and what each last said of its use.
//!
//! Soft state: nothing here is ever written to disk or to Raft.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::Stream;
use hive_manifests::Resource;
use hive_proto::frame;
use hive_proto::link::{Link, LinkError, Purpose, Stream as LinkStream};
use hive_proto::v1::{
    self, FunctionUsage, FunctionUseRequest, LogLine, LogRequest, NodeUsage, NodeUsageRequest,
    Usage,
};

use super::bounds::Allowance;
use super::function_usage::{FunctionName, FunctionUsages, FunctionUse, SwarmUse, Teller};
use super::links::Links;
use crate::holdings::{Artifacts, Holdings};
use crate::peers::Peers;
use crate::state::{Key, State};
use crate::store::Replica;

/// A log line is at most 8 KiB of text on the agent; the rest is names.
const MAX_LOG_LINE_BYTES: usize = 16 << 10;

/// How long another controller may take to tell the usage it knows.
const USAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// For a stream to be opened and the request in it to be taken. Where as many are open as a node
/// allows, one of them may end in this time; the caller can go elsewhere meanwhile.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Sessions that a node may begin: each is written down. A link that comes and goes takes one each
/// time.
const SESSIONS: (u32, Duration) = (20, Duration::from_secs(3));

/// Events that a node may tell: each is written down. The agent sums up what repeats.
const EVENTS: (u32, Duration) = (64, Duration::from_secs(2));

#[derive(Clone)]
pub struct Nodes {
    /// Of nodes that were linked since the start; links come and go, this stays.
    allowances: Arc<Mutex<BTreeMap<String, Allowances>>>,
    links: Links,
    usages: Arc<Mutex<FunctionUsages>>,
    /// By session.
    holdings: Arc<Mutex<Holdings<String>>>,
    replica: Replica,
    peers: Peers,
}

struct Allowances {
    sessions: Allowance,
    events: Allowance,
}

/// Takes what a session tells; when it is dropped, what that is now is forgotten.
pub(super) struct Telling {
    nodes: Nodes,
    node: String,
    session: String,
    moved: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeUnreachable {
    #[error("node {0:?} has no link to this controller: it is off, cut off, or just starting")]
    NotLinked(String),
    #[error("the link to node {node:?} failed")]
    Link {
        node: String,
        #[source]
        source: LinkError,
    },
    #[error("node {0:?} takes no further requests now")]
    Busy(String),
    #[error("cannot ask node {node:?}")]
    Ask {
        node: String,
        #[source]
        source: frame::FrameError,
    },
}

impl Nodes {
    pub fn new(replica: Replica, peers: Peers) -> Self {
        Self {
            allowances: Arc::default(),
            links: Links::default(),
            usages: Arc::new(Mutex::new(FunctionUsages::new(Instant::now()))),
            holdings: Arc::default(),
            replica,
            peers,
        }
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    pub(super) fn may_begin_session(&self, node: &str) -> bool {
        self.take(node, |allowances| &mut allowances.sessions)
    }

    pub(super) fn may_tell_event(&self, node: &str) -> bool {
        self.take(node, |allowances| &mut allowances.events)
    }

    fn take(&self, node: &str, which: fn(&mut Allowances) -> &mut Allowance) -> bool {
        let now = Instant::now();
        let of = |(burst, every)| Allowance::new(burst, every, now);
        let mut all = self.allowances();
        let allowances = all.entry(node.to_owned()).or_insert_with(|| Allowances {
            sessions: of(SESSIONS),
            events: of(EVENTS),
        });
        which(allowances).take(now).is_ok()
    }

    /// Nodes that were linked since the start.
    pub(super) fn remembered(&self) -> BTreeSet<String> {
        let linked = self.links.nodes();
        let allowances = self.allowances();
        linked
            .into_iter()
            .chain(allowances.keys().cloned())
            .collect()
    }

    /// Forgets what is kept of a node that is part of the swarm no more.
    pub(super) fn forget(&self, node: &str) {
        self.allowances().remove(node);
    }

    fn allowances(&self) -> MutexGuard<'_, BTreeMap<String, Allowances>> {
        self.allowances
            .lock()
            .expect("no holder of the lock panics")
    }

    /// `moved`: the node's agent has held a session before.
    pub(super) fn telling(&self, node: &str, session: &str, moved: bool) -> Telling {
        Telling {
            nodes: self.clone(),
            node: node.to_owned(),
            session: session.to_owned(),
            moved,
        }
    }

    fn usages(&self) -> MutexGuard<'_, FunctionUsages> {
        self.usages.lock().expect("no holder of the lock panics")
    }

    /// What nodes whose session is with this controller have on their disks.
    pub(super) fn holdings(&self) -> Holdings<String> {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, Holdings<String>> {
        self.holdings.lock().expect("no holder of the lock panics")
    }

    pub async fn open(&self, node: &str, purpose: Purpose) -> Result<LinkStream, NodeUnreachable> {
        let link = self
            .links
            .of(node)
            .ok_or_else(|| NodeUnreachable::NotLinked(node.to_owned()))?;
        open(&link, node, purpose).await
    }

    /// The log of a function on one node; ends when the node has no more, or with the link.
    pub async fn logs(
        &self,
        node: &str,
        request: LogRequest,
    ) -> Result<
        impl Stream<Item = Result<LogLine, frame::FrameError>> + Send + use<>,
        NodeUnreachable,
    > {
        let mut stream = self.open(node, Purpose::Logs).await?;
        tokio::time::timeout(OPEN_TIMEOUT, frame::write(&mut stream, &request))
            .await
            .map_err(|_| NodeUnreachable::Busy(node.to_owned()))?
            .map_err(|source| NodeUnreachable::Ask {
                node: node.to_owned(),
                source,
            })?;
        Ok(futures::stream::try_unfold(
            stream,
            |mut stream| async move {
                let line = frame::read(&mut stream, MAX_LOG_LINE_BYTES).await?;
                Ok(line.map(|line| (line, stream)))
            },
        ))
    }

    /// What this controller heard itself.
    pub fn own_usage(&self) -> Vec<NodeUsage> {
        self.usages().nodes(Instant::now()).collect()
    }

    /// The same by functions: of those that there are, and had a request.
    pub fn own_function_use(&self) -> BTreeMap<FunctionName, FunctionUse> {
        let state = self.replica.state();
        self.usages()
            .functions(Instant::now(), |name| exists(&state, name))
    }

    /// Functions that found no room in what is kept.
    pub fn function_usages_dropped(&self) -> u64 {
        self.usages().dropped()
    }

    /// What all controllers heard of functions: of one, of a namespace's, or of all.
    pub async fn function_use(
        &self,
        namespace: Option<&str>,
        function: Option<&str>,
    ) -> BTreeMap<FunctionName, SwarmUse> {
        let ask = FunctionUseRequest {
            namespace: namespace.unwrap_or_default().to_owned(),
            function: function.unwrap_or_default().to_owned(),
        };
        let state = self.replica.state();
        let others = state.controllers().map(|(id, _)| id);
        let asks = others
            .filter(|id| *id != self.replica.id())
            .map(|id| self.function_use_of(id, ask.clone()));
        let answers = futures::future::join_all(asks).await;
        let mut all: BTreeMap<FunctionName, SwarmUse> = BTreeMap::new();
        let answers = answers.into_iter().flatten();
        for one in answers.chain(self.own_function_use_of(&ask)) {
            let name = one.told.as_ref();
            let name = name.map(|told| (told.namespace.clone(), told.function.clone()));
            all.entry(name.unwrap_or_default()).or_default().add(&one);
        }
        all
    }

    /// Answers another controller.
    pub(super) fn own_function_use_of(&self, ask: &FunctionUseRequest) -> Vec<v1::FunctionUse> {
        let is_asked = |asked: &str, name: &str| asked.is_empty() || asked == name;
        self.own_function_use()
            .into_iter()
            .filter(|((namespace, function), _)| {
                is_asked(&ask.namespace, namespace) && is_asked(&ask.function, function)
            })
            .map(|(name, used)| used.message(name))
            .collect()
    }

    async fn function_use_of(
        &self,
        controller: u64,
        ask: FunctionUseRequest,
    ) -> Vec<v1::FunctionUse> {
        let ask = async {
            let mut client = self.peers.requests(controller).ok()?;
            match client.function_use(ask).await {
                Ok(reply) => Some(reply.into_inner().functions),
                // One of the release before adds up nothing.
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    let reply = client.node_usage(NodeUsageRequest {}).await.ok()?;
                    let nodes = reply.into_inner().nodes.into_iter();
                    let usages = nodes.filter_map(|node| node.usage);
                    let told = usages.flat_map(|usage| usage.functions);
                    Some(told.map(without_rates).collect())
                }
                Err(_) => None,
            }
        };
        let answer = tokio::time::timeout(USAGE_TIMEOUT, ask).await;
        answer.ok().flatten().unwrap_or_default()
    }

    /// The newest usage of every node, whichever controller its session is with.
    pub async fn usage(&self) -> Vec<NodeUsage> {
        let others = self.replica.state();
        let asks = others
            .controllers()
            .filter(|(id, _)| *id != self.replica.id())
            .map(|(id, _)| self.usage_of(id));
        let mut newest: BTreeMap<String, NodeUsage> = BTreeMap::new();
        let answers = futures::future::join_all(asks).await;
        for usage in answers.into_iter().flatten().chain(self.own_usage()) {
            match newest.get(&usage.node) {
                Some(known) if known.age_ms <= usage.age_ms => {}
                _ => {
                    newest.insert(usage.node.clone(), usage);
                }
            }
        }
        newest.into_values().collect()
    }

    async fn usage_of(&self, controller: u64) -> Vec<NodeUsage> {
        let ask = async {
            let mut client = self.peers.requests(controller).ok()?;
            let reply = client.node_usage(NodeUsageRequest {}).await.ok()?;
            Some(reply.into_inner().nodes)
        };
        tokio::time::timeout(USAGE_TIMEOUT, ask)
            .await
            .ok()
            .flatten()
            .unwrap_or_default()
    }
}

impl Telling {
    pub fn tell(&self, usage: Usage) {
        let state = self.nodes.replica.state();
        let teller = Teller {
            node: &self.node,
            session: &self.session,
            moved: self.moved,
        };
        let exists = |name: &FunctionName| exists(&state, name);
        self.nodes
            .usages()
            .take(teller, usage, Instant::now(), exists);
    }

    /// What is on the node's disk, all of it.
    pub fn hold(&self, artifacts: Artifacts) {
        let mut held = self.nodes.held();
        match artifacts.is_empty() {
            true => held.forget(&self.session, &self.node),
            false => held.hear(self.session.clone(), &self.node, artifacts),
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.nodes.usages().forget(&self.node, &self.session);
        self.nodes.held().forget(&self.session, &self.node);
    }
}

fn exists(state: &State, (namespace, function): &FunctionName) -> bool {
    let key = Key::new(Resource::Function, &**namespace, &**function);
    state.get(&key).is_some()
}

fn without_rates(told: FunctionUsage) -> v1::FunctionUse {
    v1::FunctionUse {
        told: Some(told),
        ..Default::default()
    }
}

/// Opens a stream of a link, which waits while as many are open as the node allows.
pub(super) async fn open(
    link: &Link,
    node: &str,
    purpose: Purpose,
) -> Result<LinkStream, NodeUnreachable> {
    tokio::time::timeout(OPEN_TIMEOUT, link.open(purpose))
        .await
        .map_err(|_| NodeUnreachable::Busy(node.to_owned()))?
        .map_err(|source| NodeUnreachable::Link {
            node: node.to_owned(),
            source,
        })
}
