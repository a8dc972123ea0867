//! Pushing a component as an image of its own, in the layout of the CNCF's working group for WebAssembly.
//!
//! Bytes flow in, requests flow out: the component and its config where the registry lacks them, then
//! the manifest that makes them an image. The same component makes the same image: nothing of it says
//! when or by whom.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;
use url::Url;

use crate::ask::{Answer, Ask, AskError, Wants, host};
use crate::credentials::Login;
use crate::digest::Digest;
use crate::media::{OCI_MANIFEST, WASM, WASM_CONFIG};
use crate::reference::Reference;
use crate::session::{Access, Session};

/// ghcr.io refuses larger requests; two round trips fewer for what fits in one. Bytes.
const PIECE_BYTES: usize = 4 << 20;

/// Of answers to uploads, which are empty or some words.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Every component has this before all else; core modules end in other bytes.
const COMPONENT_HEADER: [u8; 8] = [0x00, b'a', b's', b'm', 0x0d, 0x00, 0x01, 0x00];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(
        "it is a core module, not a component: build it for wasm32-wasip2, or wrap it (wasm-tools component new)"
    )]
    CoreModule,
    #[error("it is no WebAssembly component")]
    NoComponent,
    #[error("{0} names a digest, and what is pushed has its own: name a tag")]
    Pinned(Reference),
    #[error("{host} takes an upload and does not say where")]
    NoLocation { host: String },
}

/// Puts an image into a registry.
#[derive(Debug)]
pub struct Push {
    session: Session,
    reference: Reference,
    blobs: VecDeque<Part>,
    manifest: Bytes,
    asked: Asked,
}

#[derive(Debug)]
struct Part {
    digest: Digest,
    bytes: Bytes,
}

#[derive(Debug)]
enum Asked {
    /// Whether the first of the blobs is there.
    Whether,
    Upload,
    /// A piece of it, which ends here.
    Piece(usize),
    Whole,
    Manifest,
    Done,
}

impl Push {
    pub fn new(
        reference: Reference,
        login: Option<Login>,
        component: Bytes,
    ) -> Result<Self, PushError> {
        if reference.digest().is_some() {
            return Err(PushError::Pinned(reference));
        }
        if !component.starts_with(&COMPONENT_HEADER) {
            return Err(match component.starts_with(b"\0asm") {
                true => PushError::CoreModule,
                false => PushError::NoComponent,
            });
        }
        let layer = Digest::of(&component);
        let config = json!({
            // Others' programs don't read a config without.
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer.to_string()],
            "component": { "exports": [], "imports": [] },
        });
        let config = Bytes::from(config.to_string());
        let describe = |kind: &str, bytes: &Bytes| json!({ "mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": describe(WASM_CONFIG, &config),
            "layers": [describe(WASM, &component)],
        });
        let part = |bytes: Bytes| Part {
            digest: Digest::of(&bytes),
            bytes,
        };
        let mut push = Self {
            session: Session::new(&reference, login, Access::Push),
            reference,
            blobs: [part(component), part(config)].into(),
            manifest: Bytes::from(manifest.to_string()),
            asked: Asked::Done,
        };
        push.go_on();
        Ok(push)
    }

    /// The image by its digest.
    pub fn pinned(&self) -> Reference {
        self.reference.pinned(Digest::of(&self.manifest))
    }

    /// What is to be sent now; `None` when all is there.
    pub fn next(&self) -> Option<Ask> {
        self.session.next()
    }

    pub fn take(&mut self, answer: Answer) -> Result<(), PushError> {
        let Some((url, answer)) = self.session.take(answer)? else {
            return Ok(());
        };
        let status = answer.status.as_u16();
        match (&self.asked, status) {
            (Asked::Whether, 200) => {
                self.blobs.pop_front();
                self.go_on();
            }
            (Asked::Whether, 404) => {
                let url = self.session.url("blobs/uploads/");
                self.ask(Method::POST, url, Bytes::new(), &[]);
                self.asked = Asked::Upload;
            }
            (Asked::Upload, 202) => {
                let to = self.location(&url, &answer)?;
                self.send(to, 0);
            }
            (Asked::Piece(end), 202) => {
                let end = *end;
                let to = self.location(&url, &answer)?;
                self.send(to, end);
            }
            (Asked::Whole, 201 | 204) => {
                self.blobs.pop_front();
                self.go_on();
            }
            (Asked::Manifest, 201 | 200) => self.asked = Asked::Done,
            (_, 404) => return Err(AskError::NotFound { host: host(&url) }.into()),
            (_, status) => {
                return Err(AskError::Status {
                    host: host(&url),
                    status,
                }
                .into());
            }
        }
        Ok(())
    }

    /// The next blob, or the manifest behind the last.
    fn go_on(&mut self) {
        match self.blobs.front() {
            Some(part) => {
                let url = self.session.url(&format!("blobs/{}", part.digest));
                self.ask(Method::HEAD, url, Bytes::new(), &[]);
                self.asked = Asked::Whether;
            }
            None => {
                let name = self.reference.wanted();
                let url = self.session.url(&format!("manifests/{name}"));
                let manifest = self.manifest.clone();
                self.ask(
                    Method::PUT,
                    url,
                    manifest,
                    &[(CONTENT_TYPE, OCI_MANIFEST.to_owned())],
                );
                self.asked = Asked::Manifest;
            }
        }
    }

    fn location(&self, url: &Url, answer: &Answer) -> Result<Url, PushError> {
        let location = answer.location();
        let location = location.ok_or_else(|| PushError::NoLocation { host: host(url) })?;
        Ok(self.session.at(location, url)?)
    }

    /// What is left from `start` of the first blob: all of it if it fits.
    fn send(&mut self, mut to: Url, start: usize) {
        let part = self.blobs.front().expect("it is being uploaded");
        let left = part.bytes.slice(start..);
        let kind = (CONTENT_TYPE, "application/octet-stream".to_owned());
        if left.len() > PIECE_BYTES {
            let end = start + PIECE_BYTES;
            let range = (CONTENT_RANGE, format!("{start}-{}", end - 1));
            self.ask(Method::PATCH, to, left.slice(..PIECE_BYTES), &[kind, range]);
            self.asked = Asked::Piece(end);
            return;
        }
        to.query_pairs_mut()
            .append_pair("digest", &part.digest.to_string());
        match start {
            0 => self.ask(Method::PUT, to, left, &[kind]),
            _ => {
                let range = (CONTENT_RANGE, format!("{start}-{}", start + left.len() - 1));
                self.ask(Method::PUT, to, left, &[kind, range]);
            }
        }
        self.asked = Asked::Whole;
    }

    fn ask(
        &mut self,
        method: Method,
        url: Url,
        body: Bytes,
        headers: &[(http::HeaderName, String)],
    ) {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("made of numbers and media types");
            all.insert(name, value);
        }
        // Said also for nothing: registries refuse a POST of unknown length.
        if method != Method::HEAD {
            all.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        self.session.begin(Ask {
            method,
            url,
            headers: all,
            body,
            wants: Wants::Body(MAX_ANSWER_BYTES),
        });
    }
}
