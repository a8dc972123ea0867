//! Who links to whom in the tests, and how.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hive_identity::tls::{enrol_client_config, link_client_config, link_server_config};
use hive_identity::{
    CertificateAuthority, Credentials, DEFAULT_LIFETIME, DeviceKey, ExpectedController,
    LiveCredentials, Subject,
};
use hive_proto::link::{
    BindError, DialError, Link, LinkSettings, Listener, Transport, Transports, dial, memory,
};

/// Far beyond what any step takes on a busy machine; without it a failure would hang.
const DEADLINE: Duration = Duration::from_secs(180);

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test's deadline has passed")
}

pub fn settings(transports: Transports) -> LinkSettings {
    LinkSettings {
        transports,
        ..LinkSettings::default()
    }
}

pub struct Swarm {
    ca: CertificateAuthority,
}

impl Swarm {
    pub fn new() -> Self {
        Self {
            ca: CertificateAuthority::create("home").unwrap(),
        }
    }

    pub fn issue(&self, subject: Subject, now: SystemTime, lifetime: Duration) -> LiveCredentials {
        let key = DeviceKey::generate();
        let issued = self
            .ca
            .issue(&key.csr().unwrap(), &subject, &[], now, lifetime)
            .unwrap();
        let ca = self.ca.certificate().clone();
        LiveCredentials::new(Credentials::new(key, issued.der, ca).unwrap())
    }

    pub fn controller(&self) -> LiveCredentials {
        let subject = Subject::Controller { raft_id: 7 };
        self.issue(subject, SystemTime::now(), DEFAULT_LIFETIME)
    }

    pub fn node(&self) -> LiveCredentials {
        let subject = Subject::Node { name: "pi".into() };
        self.issue(subject, SystemTime::now(), DEFAULT_LIFETIME)
    }

    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        link_server_config(&self.controller())
    }

    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        link_client_config(&self.node(), ExpectedController::Any)
    }

    pub fn enrol_config(&self) -> Arc<rustls::ClientConfig> {
        enrol_client_config(self.ca.certificate().fingerprint())
    }

    pub async fn listen(&self, settings: LinkSettings) -> Listener {
        self.listen_on(0, settings).await
    }

    /// Waits for the port, should one that was closed still be going.
    pub async fn listen_on(&self, port: u16, settings: LinkSettings) -> Listener {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let config = self.server_config();
        within(async {
            loop {
                match Listener::bind(address, config.clone(), settings.clone()).await {
                    Ok(listener) => return listener,
                    Err(BindError::Udp { source, .. } | BindError::Tcp { source, .. })
                        if port != 0 && source.kind() == ErrorKind::AddrInUse =>
                    {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }
}

/// A node and the controller that it has linked to.
pub struct Pair {
    pub node: Link,
    pub controller: Link,
    _listener: Option<Listener>,
}

impl Pair {
    pub async fn over(transport: Transport) -> Self {
        let transports = match transport {
            Transport::Quic => Transports::QuicOnly,
            Transport::Tcp => Transports::TcpOnly,
            Transport::Memory => return Self::in_memory(),
        };
        let swarm = Swarm::new();
        let settings = settings(transports);
        let listener = swarm.listen(settings.clone()).await;
        let (node, controller) = link(&listener, swarm.client_config(), &settings).await;
        Self {
            node: node.unwrap(),
            controller: controller.unwrap(),
            _listener: Some(listener),
        }
    }

    fn in_memory() -> Self {
        let swarm = Swarm::new();
        let own = |live: LiveCredentials| live.current().own().clone();
        let (node, controller) = memory::pair(own(swarm.node()), own(swarm.controller()));
        Self {
            node,
            controller,
            _listener: None,
        }
    }
}

/// Dials a listener; gives both ends, as far as there are any.
pub async fn link(
    listener: &Listener,
    client: Arc<rustls::ClientConfig>,
    settings: &LinkSettings,
) -> (Result<Link, DialError>, Option<Link>) {
    let endpoint = listener.local_addr().to_string();
    within(async {
        match dial(&endpoint, client, settings).await {
            Ok(link) => (Ok(link), listener.accept().await),
            Err(error) => (Err(error), None),
        }
    })
    .await
}

/// An error with all of its causes, as a log would have it.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
