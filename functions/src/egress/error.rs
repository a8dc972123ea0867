//! What a guest is told when its request fails.
//!
//! Errors of sockets, TLS and HTTP come in and WASI's codes go out. Nothing of them is written to
//! this process's own log: a guest could fill it.

use std::{error::Error as _, io};

use wasmtime_wasi_http::Error;

pub(super) fn of_connecting(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        _ => Error::DestinationUnavailable,
    }
}

pub(super) fn of_tls(error: &io::Error) -> Error {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}

pub(super) fn of_http(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else if error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else if error.is_user() {
        // The guest's own body ended wrongly.
        let size = error
            .source()
            .and_then(|source| source.downcast_ref::<Error>());
        match size {
            Some(Error::HttpRequestBodySize(size)) => Error::HttpRequestBodySize(*size),
            _ => Error::InternalError(Some("the body of the request broke off".to_owned())),
        }
    } else {
        Error::ConnectionTerminated
    }
}
