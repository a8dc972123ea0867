//! The name of an image, as Docker and OCI write it: `ghcr.io/acme/hello:1.2`, `oci://` before it or not.
//!
//! Docker Hub is meant where no registry is named. What is no name is refused here, before anybody is
//! asked: a name becomes a part of paths and of what tokens are asked for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::Url;

use crate::digest::Digest;

/// Registry, repository, tag and digest at their longest.
pub const MAX_REFERENCE_BYTES: usize = 512;

/// As the distribution specification has it, of the repository and its registry.
const MAX_NAME_BYTES: usize = 255;

const MAX_TAG_BYTES: usize = 128;

/// What is meant where neither tag nor digest is said.
const DEFAULT_TAG: &str = "latest";

const DOCKER_HUB: &str = "docker.io";

/// Where Docker Hub answers.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// A registry, a repository in it, and which of its images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and, where said, port.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    #[error("{0}:// is not oci://")]
    OtherScheme(String),
    #[error("{0:?} is not a registry: a host name or an address, and a port where it is not 443")]
    Registry(String),
    #[error(
        "{0:?} is not a repository: parts of lower-case letters and digits, with single '.', '_' or '-' between them, separated by '/'"
    )]
    Repository(String),
    #[error(
        "{0:?} is not a tag: letters, digits, '_', '.' and '-', 128 at most, not beginning with '.' or '-'"
    )]
    Tag(String),
    #[error("{0:?} is not a digest: \"sha256:\" and 64 lower-case hexadecimal digits")]
    Digest(String),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::TooLong(MAX_REFERENCE_BYTES));
        }
        let rest = match text.split_once("://") {
            Some(("oci", rest)) => rest,
            Some((scheme, _)) => return Err(ReferenceError::OtherScheme(scheme.to_owned())),
            None => text,
        };
        if rest.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let parsed = digest.parse();
                let bad = |_| ReferenceError::Digest(digest.to_owned());
                (rest, Some(parsed.map_err(bad)?))
            }
            None => (rest, None),
        };
        // A colon before the last slash is that of a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, repository)) if names_a_registry(first) => {
                let registry = match first {
                    "index.docker.io" | DOCKER_HUB_HOST => DOCKER_HUB.to_owned(),
                    first => first.to_ascii_lowercase(),
                };
                (registry, repository.to_owned())
            }
            _ => (DOCKER_HUB.to_owned(), name.to_owned()),
        };
        if !is_registry(&registry) {
            return Err(ReferenceError::Registry(registry));
        }
        if !is_repository(&repository) {
            return Err(ReferenceError::Repository(repository));
        }
        let repository = match registry == DOCKER_HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository,
        };
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong(MAX_NAME_BYTES));
        }
        Ok(Self {
            registry,
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl Reference {
    /// As people know it: `docker.io`, also where another host answers for it.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The tag, unless the image is named by its digest alone.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some(DEFAULT_TAG),
            (None, Some(_)) => None,
        }
    }

    /// What the registry is asked for: a digest wherever there is one.
    pub fn wanted(&self) -> String {
        match (self.digest, self.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(DEFAULT_TAG).to_owned(),
        }
    }

    /// The same repository's image with this digest, whatever becomes of its tags.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// On this machine, where others can't listen, HTTP will do, as it does for Docker.
    pub fn is_local(&self) -> bool {
        let url = self.endpoint("https");
        match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            None => false,
        }
    }

    /// Where the repository is asked: `https://ghcr.io/v2/acme/hello/`.
    pub fn base(&self) -> Url {
        let scheme = match self.is_local() {
            true => "http",
            false => "https",
        };
        let mut url = self.endpoint(scheme);
        url.set_path(&format!("/v2/{}/", self.repository));
        url
    }

    fn endpoint(&self, scheme: &str) -> Url {
        let host = match &*self.registry {
            DOCKER_HUB => DOCKER_HUB_HOST,
            other => other,
        };
        Url::parse(&format!("{scheme}://{host}/"))
            .expect("a registry was parsed as a URL's host before")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Of `acme/hello` the first part is no registry: only what looks like a host is.
fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// A host and a port and nothing else, that a URL has them as they are.
fn is_registry(text: &str) -> bool {
    let is_plain =
        |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    if text.is_empty() || !text.bytes().all(is_plain) {
        return false;
    }
    let Ok(url) = Url::parse(&format!("https://{text}/")) else {
        return false;
    };
    let Some(host) = url.host_str() else {
        return false;
    };
    // "0x7f.1" and "127.1" are addresses in disguise; nobody names a registry so.
    let as_written = match text.strip_prefix(host) {
        Some("") => true,
        Some(port) => port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0)),
        None => false,
    };
    as_written && host.len() <= MAX_NAME_BYTES
}

/// `path-component := [a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_repository(text: &str) -> bool {
    text.split('/').all(|part| {
        let is_word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = part.as_bytes();
        let ends_well = bytes.first().copied().is_some_and(is_word)
            && bytes.last().copied().is_some_and(is_word);
        let between = part.split(|c: char| c.is_ascii() && is_word(c as u8));
        ends_well
            && between
                .into_iter()
                .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|c| c == b'-'))
    })
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.len() <= MAX_TAG_BYTES
        && text.as_bytes().first().copied().is_some_and(is_word)
        && text.bytes().all(|c| is_word(c) || matches!(c, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let pinned = format!("ghcr.io/acme/hello@{DIGEST}");
        let both = format!("ghcr.io/acme/hello:1@{DIGEST}");
        for (text, name, base) in [
            (
                "hello",
                "docker.io/library/hello:latest",
                "https://registry-1.docker.io/v2/library/hello/",
            ),
            (
                "oci://acme/hello:1.2",
                "docker.io/acme/hello:1.2",
                "https://registry-1.docker.io/v2/acme/hello/",
            ),
            (
                "index.docker.io/acme/a",
                "docker.io/acme/a:latest",
                "https://registry-1.docker.io/v2/acme/a/",
            ),
            (
                "oci://ghcr.io/acme/hello:1.2",
                "ghcr.io/acme/hello:1.2",
                "https://ghcr.io/v2/acme/hello/",
            ),
            (
                "GHCR.io/a/b__c--d",
                "ghcr.io/a/b__c--d:latest",
                "https://ghcr.io/v2/a/b__c--d/",
            ),
            (
                "registry.lan:5000/a",
                "registry.lan:5000/a:latest",
                "https://registry.lan:5000/v2/a/",
            ),
            (
                "localhost/a",
                "localhost/a:latest",
                "http://localhost/v2/a/",
            ),
            (
                "localhost:5000/a",
                "localhost:5000/a:latest",
                "http://localhost:5000/v2/a/",
            ),
            (
                "127.0.0.1:80/a",
                "127.0.0.1:80/a:latest",
                "http://127.0.0.1/v2/a/",
            ),
            (
                "[::1]:5000/a",
                "[::1]:5000/a:latest",
                "http://[::1]:5000/v2/a/",
            ),
            ("10.0.0.1/a", "10.0.0.1/a:latest", "https://10.0.0.1/v2/a/"),
            (&pinned, &pinned, "https://ghcr.io/v2/acme/hello/"),
            (&both, &both, "https://ghcr.io/v2/acme/hello/"),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), name, "{text}");
            assert_eq!(reference.base().as_str(), base, "{text}");
            assert_eq!(
                reference.to_string().parse::<Reference>().unwrap(),
                reference.settled()
            );
        }
    }

    impl Reference {
        /// With the tag that is meant.
        fn settled(&self) -> Self {
            Self {
                tag: self.tag().map(str::to_owned),
                ..self.clone()
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("ghcr.io/{}", "a".repeat(250));
        for text in [
            "",
            "oci://",
            "https://ghcr.io/a",
            "ghcr.io/",
            "ghcr.io/A",
            "Acme/a",
            "ghcr.io/a//b",
            "ghcr.io/a/",
            "ghcr.io/../a",
            "ghcr.io/a:",
            "ghcr.io/a:.x",
            "ghcr.io/a:b:c",
            "ghcr.io/a@sha256:12",
            "ghcr.io/a@",
            "ghcr.io:0/a",
            "ghcr.io:x/a",
            "user@ghcr.io/a",
            "a b",
            "ghcr.io/a?b",
            "ghcr.io/a_.b",
            "ghcr.io/a..b",
            "ghcr.io/-a",
            "127.1/a",
            "0x7f.0.0.1/a",
            "[::1/a",
            "é.io/a",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_is_wanted_rather_than_a_tag() {
        let both: Reference = format!("ghcr.io/a/b:1@{DIGEST}").parse().unwrap();
        assert_eq!(both.wanted(), DIGEST);
        let tagged: Reference = "ghcr.io/a/b".parse().unwrap();
        assert_eq!(tagged.wanted(), "latest");
        let digest = DIGEST.parse().unwrap();
        assert_eq!(
            tagged.pinned(digest).to_string(),
            format!("ghcr.io/a/b@{DIGEST}")
        );
    }
}
