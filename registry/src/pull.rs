//! Pulling a component: first [`Pull`] finds out which blob it is, then [`Blob`] asks for its bytes.
//!
//! Two machines, since what is held already need not be fetched: answers flow in, requests flow out,
//! and at the end there is an image's digest and its component. Manifests are verified here; a blob's
//! bytes by whoever stores them, under the digest that it was asked for by.

use std::collections::VecDeque;

use crate::ask::{Answer, Ask, AskError, Wants, host};
use crate::credentials::Login;
use crate::digest::Digest;
use crate::manifest::{
    Choice, Descriptor, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError,
    component_of_spin,
};
use crate::media::{INDEXES, MANIFESTS};
use crate::reference::Reference;
use crate::session::{Access, Session};

/// What a reference led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image by its digest, which will be the same whatever becomes of the tag.
    pub pinned: Reference,
    pub component: Descriptor,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the component has {size} bytes, more than the {limit} that are taken")]
    TooLarge { size: u64, limit: u64 },
    #[error("{host} answers with {found} bytes where the manifest says {expected}")]
    OtherSize {
        host: String,
        expected: u64,
        found: u64,
    },
}

impl PullError {
    /// The same pull can succeed in a while, without anybody's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Ask(error) if error.is_passing())
    }
}

/// Finds the component of an image.
#[derive(Clone, Debug)]
pub struct Pull {
    session: Session,
    reference: Reference,
    /// Bytes that a component may have.
    limit: u64,
    /// Of the manifest that the reference names, once it is there.
    pinned: Option<Digest>,
    asked: Asked,
}

#[derive(Clone, Debug)]
enum Asked {
    /// The one with this digest, if that is known.
    Manifest(Option<Digest>),
    /// Which of the layers it is.
    Application {
        application: Descriptor,
        layers: VecDeque<Descriptor>,
    },
    Found(Image),
}

impl Pull {
    pub fn new(reference: Reference, login: Option<Login>, limit: u64) -> Self {
        let mut session = Session::new(&reference, login, Access::Pull);
        ask_manifest(&mut session, &reference.wanted());
        Self {
            session,
            limit,
            pinned: None,
            asked: Asked::Manifest(reference.digest()),
            reference,
        }
    }

    /// What is to be sent now; `None` when the image is found.
    pub fn next(&self) -> Option<Ask> {
        self.session.next()
    }

    pub fn take(&mut self, answer: Answer) -> Result<(), PullError> {
        let Some((url, answer)) = self.session.take(answer)? else {
            return Ok(());
        };
        let answer = succeeded(&url, answer)?;
        let body = &answer.body;
        match std::mem::replace(&mut self.asked, Asked::Manifest(None)) {
            Asked::Manifest(expected) => {
                let digest = Digest::of(body);
                if let Some(expected) = expected.filter(|expected| *expected != digest) {
                    return Err(ManifestError::OtherManifest(expected).into());
                }
                let nested = self.pinned.is_some();
                self.pinned.get_or_insert(digest);
                let manifest = Manifest::parse(body)?;
                if nested && manifest.is_index() {
                    return Err(ManifestError::Nested.into());
                }
                match manifest.choose()? {
                    Choice::Manifest(digest) => {
                        ask_manifest(&mut self.session, &digest.to_string());
                        self.asked = Asked::Manifest(Some(digest));
                    }
                    Choice::Component(component) => self.found(component)?,
                    Choice::Application {
                        application,
                        layers,
                    } => {
                        let path = format!("blobs/{}", application.digest);
                        self.session.get(&path, &[], Wants::Body(MAX_CONFIG_BYTES));
                        self.asked = Asked::Application {
                            application,
                            layers: layers.into(),
                        };
                    }
                }
            }
            Asked::Application {
                application,
                layers,
            } => {
                if Digest::of(body) != application.digest {
                    return Err(ManifestError::NotAnApplication.into());
                }
                let component = component_of_spin(body, &Vec::from(layers))?;
                self.found(component)?;
            }
            Asked::Found(_) => unreachable!("what is found asks nothing more"),
        }
        Ok(())
    }

    fn found(&mut self, component: Descriptor) -> Result<(), PullError> {
        if component.size > self.limit {
            return Err(PullError::TooLarge {
                size: component.size,
                limit: self.limit,
            });
        }
        let digest = self.pinned.expect("a manifest came before");
        self.asked = Asked::Found(Image {
            pinned: self.reference.pinned(digest),
            component,
        });
        Ok(())
    }

    /// The image, when there is nothing more to ask, and the machine that fetches its component.
    pub fn finish(self) -> Option<(Image, Blob)> {
        let Asked::Found(image) = self.asked else {
            return None;
        };
        let mut session = self.session;
        let path = format!("blobs/{}", image.component.digest);
        session.get(&path, &[], Wants::Head);
        let size = image.component.size;
        Some((image, Blob { session, size }))
    }
}

fn ask_manifest(session: &mut Session, wanted: &str) {
    let accept = [MANIFESTS, INDEXES].concat();
    let path = format!("manifests/{wanted}");
    session.get(&path, &accept, Wants::Body(MAX_MANIFEST_BYTES));
}

fn succeeded(url: &url::Url, answer: Answer) -> Result<Answer, AskError> {
    let host = host(url);
    match answer.status.as_u16() {
        200 => Ok(answer),
        404 => Err(AskError::NotFound { host }),
        status => Err(AskError::Status { host, status }),
    }
}

/// Asks for the bytes of a component.
#[derive(Clone, Debug)]
pub struct Blob {
    session: Session,
    size: u64,
}

impl Blob {
    /// What is to be sent now.
    pub fn next(&self) -> Option<Ask> {
        self.session.next()
    }

    /// True when the body of this answer is the blob. More than `size` bytes of it are a lie.
    pub fn take(&mut self, head: Answer) -> Result<bool, PullError> {
        let Some((url, answer)) = self.session.take(head)? else {
            return Ok(false);
        };
        let answer = succeeded(&url, answer)?;
        match answer.length() {
            Some(found) if found != self.size => Err(PullError::OtherSize {
                host: host(&url),
                expected: self.size,
                found,
            }),
            _ => Ok(true),
        }
    }
}
