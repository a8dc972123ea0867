//! Outgoing links to the other controllers.
//!
//! One link is kept to each; calls of different kinds ride in lanes, HTTP/2 connections of their
//! own within the link, so that a snapshot never delays a heartbeat. A call to a peer goes out only
//! if the certificate at the other end is that peer's.

mod caller;
mod routes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hive_identity::{LiveCredentials, Subject};
use hive_proto::calls::Calls;
use hive_proto::grpc;
use hive_proto::link::{Link, LinkSettings};
use hive_proto::v1::peers_client::PeersClient;
use tonic::Status;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

pub use self::caller::{Ask, Caller, InOrder, index_bytes, index_of};
pub use self::routes::{Connect, Route};
use crate::state::Member;

/// What calls to one peer go through. Tests put a network of their own here.
pub type Channel = BoxCloneSyncService<
    http::Request<tonic::body::Body>,
    http::Response<tonic::body::Body>,
    Status,
>;

/// What a call is for. Calls in different lanes do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft's heartbeats and votes: small, and late is as bad as lost.
    Heartbeat,
    /// Raft's log entries.
    Append,
    /// Snapshots and artifacts.
    Bulk,
    /// Forwarded commands, read indexes, presence, usage.
    Requests,
}

/// Why a peer cannot be called now. All of these may pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerUnreachable {
    #[error("controller {id} is not known here")]
    Unknown { id: u64 },
    #[error("no link to controller {id} at {endpoint}: {why}")]
    NoLink {
        id: u64,
        endpoint: String,
        why: String,
    },
    #[error("{endpoint} should be controller {id}, but its certificate says: {found}")]
    Impostor {
        id: u64,
        endpoint: String,
        found: String,
    },
}

/// The links to the other controllers. Clones share them.
#[derive(Clone)]
pub struct Peers {
    connect: Arc<Connect>,
    own: u64,
    peers: Arc<Mutex<BTreeMap<u64, Peer>>>,
}

struct Peer {
    member: Member,
    route: Route,
    /// With the id of the link that each rides in.
    channels: BTreeMap<Lane, (u64, Channel)>,
    calls: BTreeMap<Lane, (u64, Arc<Calls>)>,
    /// The link at whose other end nobody takes calls but as gRPC: a controller of an older version.
    plain: Option<u64>,
}

impl Peer {
    fn new(member: Member, route: Route) -> Self {
        Self {
            member,
            route,
            channels: BTreeMap::new(),
            calls: BTreeMap::new(),
            plain: None,
        }
    }

    /// The link to the peer, if there is one and the peer is at its other end.
    fn link(&self, id: u64) -> Result<Link, PeerUnreachable> {
        let endpoint = || self.member.link.clone();
        let Some(link) = self.route.current() else {
            return Err(PeerUnreachable::NoLink {
                id,
                endpoint: endpoint(),
                why: self.route.trouble(),
            });
        };
        check_identity(&link, id).map_err(|found| PeerUnreachable::Impostor {
            id,
            endpoint: endpoint(),
            found,
        })?;
        Ok(link)
    }

    fn client(&mut self, id: u64, lane: Lane) -> Result<PeersClient<Channel>, PeerUnreachable> {
        if let Some(channel) = self.route.direct() {
            return Ok(bounded(channel));
        }
        let link = self.link(id)?;
        let channel = match self.channels.get(&lane) {
            Some((link_id, channel)) if *link_id == link.id() => channel.clone(),
            _ => {
                let link_id = link.id();
                let channel = Channel::new(grpc::channel(link).map_err(failed));
                self.channels.insert(lane, (link_id, channel.clone()));
                channel
            }
        };
        Ok(bounded(channel))
    }

    fn caller(&mut self, id: u64, lane: Lane) -> Result<Caller, PeerUnreachable> {
        if let Some(stream) = self.route.direct_stream() {
            return Ok(Caller::InOrder(stream));
        }
        if self.route.direct().is_some() {
            return Ok(Caller::Grpc(Box::new(self.client(id, lane)?)));
        }
        let link = self.link(id)?;
        let link_id = link.id();
        if let Some((of_link, calls)) = self.calls.get(&lane)
            && *of_link == link_id
        {
            if !calls.has_ended() {
                return Ok(Caller::InOrder(calls.clone()));
            }
            if calls.was_refused() {
                self.plain = Some(link_id);
            }
        }
        if self.plain == Some(link_id) {
            self.calls.remove(&lane);
            return Ok(Caller::Grpc(Box::new(self.client(id, lane)?)));
        }
        let calls = Arc::new(Calls::over(link));
        self.calls.insert(lane, (link_id, calls.clone()));
        Ok(Caller::InOrder(calls))
    }
}

impl Peers {
    /// Links over the network, authenticated both ways by the credentials as they are renewed.
    /// `own` is this controller's id: it needs no link to itself.
    pub fn new(live: LiveCredentials, settings: LinkSettings, own: u64) -> Self {
        Self::connecting(routes::maintained(live, settings), own)
    }

    /// Links made by `connect`.
    pub fn connecting(connect: Connect, own: u64) -> Self {
        Self {
            connect: Arc::new(connect),
            own,
            peers: Arc::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers
            .lock()
            .expect("nothing panics while it holds the peers")
    }

    /// Makes these the peers: links to others end, links to those that moved are made anew.
    pub fn set_members(&self, members: impl IntoIterator<Item = (u64, Member)>) {
        let members: BTreeMap<u64, Member> = members.into_iter().collect();
        self.lock().retain(|id, _| members.contains_key(id));
        for (id, member) in members {
            self.set_member(id, member);
        }
    }

    /// Makes a link to a peer, or a new one if it listens elsewhere now. Must be called inside a
    /// Tokio runtime.
    pub fn set_member(&self, id: u64, member: Member) {
        if id == self.own {
            return;
        }
        let mut peers = self.lock();
        if let Some(peer) = peers.get_mut(&id)
            && peer.member.link == member.link
        {
            peer.member = member;
            return;
        }
        let route = (self.connect)(id, &member);
        peers.insert(id, Peer::new(member, route));
    }

    /// Ends the link to a peer.
    pub fn forget(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Where the peers are.
    pub fn members(&self) -> Vec<(u64, Member)> {
        self.lock()
            .iter()
            .map(|(id, peer)| (*id, peer.member.clone()))
            .collect()
    }

    /// A client for small calls; see [`Peers::client`].
    pub fn requests(&self, id: u64) -> Result<PeersClient<Channel>, PeerUnreachable> {
        self.client(id, Lane::Requests)
    }

    /// A client for calls that move much; see [`Peers::client`].
    pub fn bulk(&self, id: u64) -> Result<PeersClient<Channel>, PeerUnreachable> {
        self.client(id, Lane::Bulk)
    }

    /// A client for calls to a peer over the link as it is now. Not to be kept: links change.
    pub fn client(&self, id: u64, lane: Lane) -> Result<PeersClient<Channel>, PeerUnreachable> {
        let mut peers = self.lock();
        let peer = peers.get_mut(&id).ok_or(PeerUnreachable::Unknown { id })?;
        peer.client(id, lane)
    }

    /// For Raft's small calls to a peer over the link as it is now. Not to be kept: links change.
    /// Must be called inside a Tokio runtime.
    pub fn caller(&self, id: u64, lane: Lane) -> Result<Caller, PeerUnreachable> {
        let mut peers = self.lock();
        let peer = peers.get_mut(&id).ok_or(PeerUnreachable::Unknown { id })?;
        peer.caller(id, lane)
    }
}

/// As a client would say it by itself.
fn failed(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

fn bounded(channel: Channel) -> PeersClient<Channel> {
    PeersClient::new(channel)
        .max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(grpc::MAX_MESSAGE_BYTES)
}

/// # Errors
/// Who is there instead.
fn check_identity(link: &Link, id: u64) -> Result<(), String> {
    match link.peer().map(|peer| &peer.subject) {
        Some(Subject::Controller { raft_id }) if *raft_id == id => Ok(()),
        Some(Subject::Controller { raft_id }) => Err(format!("controller {raft_id}")),
        Some(Subject::Node { name }) => Err(format!("node {name}")),
        None => Err("nobody".to_owned()),
    }
}
