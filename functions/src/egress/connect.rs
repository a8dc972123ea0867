//! Makes connections, only to addresses that were judged.
//!
//! A destination comes in and a stream goes out. The address that is dialled must be one that
//! [`AllowedHosts`] let through, and a certificate is asked for the name that the guest wrote.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wasmtime_wasi_http::Error;

use super::{
    allowed::{AllowedHosts, Refusal},
    destination::{Destination, Host},
    dial::dial,
    error,
    resolve::Resolve,
};

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    Refused(Refusal),
    Failed(Error),
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How a runtime's functions connect.
pub(super) struct Connector {
    pub resolver: Arc<dyn Resolve>,
    /// Made when the first function needs it: the certificates of all authorities take milliseconds
    /// to read and some hundred kilobytes to keep.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Connector {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            resolver,
            tls: Arc::default(),
        }
    }

    /// Trusts nobody else.
    #[cfg(test)]
    pub(super) fn trusting(resolver: Arc<dyn Resolve>, roots: RootCertStore) -> Self {
        Self {
            resolver,
            tls: Arc::new(OnceLock::from(client_config(roots))),
        }
    }

    pub(super) async fn connect(
        &self,
        allowed: &AllowedHosts,
        to: &Destination,
        until: Instant,
    ) -> Result<Stream, ConnectError> {
        let addresses = self.addresses(allowed, to, until).await?;
        let late = |_| Error::ConnectionTimeout;
        let stream = timeout_at(until, dial(&addresses, to.port))
            .await
            .map_err(late)?
            .map_err(|error| error::of_connecting(&error))?;
        if !to.tls {
            return Ok(Stream::Plain(stream));
        }
        let name = match &to.host {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| Error::TlsCertificateError)?
            }
            Host::Address(address) => ServerName::from(*address),
        };
        let connector = TlsConnector::from(self.tls().await?);
        let stream = timeout_at(until, connector.connect(name, stream))
            .await
            .map_err(late)?
            .map_err(|error| error::of_tls(&error))?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Where a destination may be reached. One address that is refused spoils no other.
    async fn addresses(
        &self,
        allowed: &AllowedHosts,
        to: &Destination,
        until: Instant,
    ) -> Result<Vec<IpAddr>, ConnectError> {
        let found = match &to.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => timeout_at(until, self.resolver.resolve(name))
                .await
                .map_err(|_| Error::DnsTimeout)?
                .map_err(|error| Error::DnsError {
                    rcode: Some(error.to_string()),
                    info_code: None,
                })?,
        };
        let (mut open, mut refusal) = (Vec::new(), None);
        for address in found {
            match allowed.judge_address(to, address) {
                // Several sockets of one address are one address here.
                Ok(()) if open.contains(&address) => {}
                Ok(()) => open.push(address),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        match (open.is_empty(), refusal) {
            (false, _) => Ok(open),
            (true, Some(why)) => Err(ConnectError::Refused(why)),
            (true, None) => Err(Error::DestinationNotFound.into()),
        }
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let cell = self.tls.clone();
        tokio::task::spawn_blocking(move || {
            cell.get_or_init(|| client_config(known_roots())).clone()
        })
        .await
        .map_err(|error| Error::InternalError(Some(error.to_string())))
    }
}

/// Mozilla's authorities, and those that the machine's owner trusts beside them.
fn known_roots() -> RootCertStore {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate of this machine cannot be read");
    }
    let (added, ignored) = roots.add_parsable_certificates(native.certs);
    tracing::debug!(added, ignored, "authorities of this machine");
    roots
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
