//! How a link to a peer is kept: dialled again and again for controllers, handed over by tests.

use std::sync::Arc;
use std::time::Duration;

use hive_identity::{ExpectedController, LiveCredentials, tls};
use hive_proto::link::{Link, LinkSettings, Maintained};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Channel, InOrder};
use crate::state::Member;

/// Makes the route to the controller of this id.
pub type Connect = Box<dyn Fn(u64, &Member) -> Route + Send + Sync>;

/// A controller that was killed and came back at the same address is spoken to again only once the
/// old link is given up: three missed keep-alives, sooner than agents need.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps a link to each controller, for as long as its route is there.
pub(super) fn maintained(live: LiveCredentials, settings: LinkSettings) -> Connect {
    let settings = LinkSettings {
        keep_alive: settings.keep_alive.min(KEEP_ALIVE),
        idle_timeout: settings.idle_timeout.min(IDLE_TIMEOUT),
        ..settings
    };
    Box::new(move |id, member| {
        let config = tls::link_client_config(&live, ExpectedController::Id(id));
        // The route's drop ends it.
        let cancel = CancellationToken::new();
        let maintained = Maintained::spawn(member.link.as_str(), config, settings.clone(), cancel);
        Route {
            links: maintained.links(),
            kept: Some(maintained),
            direct: None,
        }
    })
}

/// The link to one peer, as it comes and goes.
pub struct Route {
    links: watch::Receiver<Option<Link>>,
    /// Closes the link when the route is dropped.
    kept: Option<Maintained>,
    direct: Option<Direct>,
}

/// A network that is no link.
struct Direct {
    channel: Channel,
    stream: Streams,
}

/// Opens a stream, where the network has any just now.
pub type Streams = Box<dyn Fn() -> Option<Arc<dyn InOrder>> + Send + Sync>;

impl Route {
    /// Follows links that somebody else makes.
    pub fn following(links: watch::Receiver<Option<Link>>) -> Self {
        Self {
            links,
            kept: None,
            direct: None,
        }
    }

    /// Calls go through this, which is no link: nobody checks who is at the other end. For a
    /// network that is simulated.
    pub fn over(channel: Channel, stream: Streams) -> Self {
        Self {
            links: watch::channel(None).1,
            kept: None,
            direct: Some(Direct { channel, stream }),
        }
    }

    pub(super) fn direct(&self) -> Option<Channel> {
        self.direct.as_ref().map(|direct| direct.channel.clone())
    }

    pub(super) fn direct_stream(&self) -> Option<Arc<dyn InOrder>> {
        (self.direct.as_ref()?.stream)()
    }

    /// The link now, if there is one that lives.
    pub fn current(&self) -> Option<Link> {
        self.links
            .borrow()
            .clone()
            .filter(|link| link.end().is_none())
    }

    /// Why there is no link, in words.
    pub fn trouble(&self) -> String {
        let Some(trouble) = self.kept.as_ref().and_then(Maintained::trouble) else {
            return "not linked yet".to_owned();
        };
        let mut text = trouble.to_string();
        let mut cause = std::error::Error::source(&trouble);
        while let Some(source) = cause {
            text.push_str(&format!(": {source}"));
            cause = source.source();
        }
        text
    }
}
