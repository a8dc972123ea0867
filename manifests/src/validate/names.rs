//! The forms that names have in Kubernetes: DNS labels and names, labels, keys of config data.
//!
//! Each function takes the text and answers why it is not of that form; the texts are made to
//! follow the path of a field in a message.

/// RFC 1123: what a part of a host name may be.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("longer than 63 characters".into());
    }
    if !is_dns_label(text) {
        return Err(
            "use lower-case letters, digits and '-', beginning and ending with a letter or digit"
                .into(),
        );
    }
    Ok(())
}

/// RFC 1123: labels with dots between.
pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("longer than 253 characters".into());
    }
    if !text.split('.').all(is_dns_label) {
        return Err("use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit".into());
    }
    Ok(())
}

/// What can be one segment of a URL's path, as Kubernetes lets roles be named.
pub(super) fn path_segment(text: &str) -> Result<(), String> {
    if matches!(text, "" | "." | "..") {
        return Err("it may not be empty, \".\" or \"..\"".into());
    }
    if let Some(bad) = text.chars().find(|c| matches!(c, '/' | '%')) {
        return Err(format!("it may not contain {bad:?}"));
    }
    Ok(())
}

/// A name that others can look up in DNS: as a subdomain, each part at most 63 characters.
pub(super) fn host(text: &str) -> Result<(), String> {
    dns_subdomain(text)?;
    if text.split('.').any(|part| part.len() > 63) {
        return Err("a part is longer than 63 characters".into());
    }
    Ok(())
}

fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}

/// `name` or `example.com/name`: keys of labels, annotations, taints; finalizers.
pub(super) fn qualified(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|why| format!("before the '/': {why}"))?;
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    label_value(name)
}

/// Values of labels; may be empty.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("longer than 63 characters".into());
    }
    let bytes = text.as_bytes();
    let edge = |c: Option<&u8>| c.is_none_or(u8::is_ascii_alphanumeric);
    let inner = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if !edge(bytes.first()) || !edge(bytes.last()) || !bytes.iter().all(inner) {
        return Err(
            "use letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
                .into(),
        );
    }
    Ok(())
}

/// Keys in the data of a Secret or ConfigMap.
pub(super) fn data_key(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 253 {
        return Err("a key has 1 to 253 characters".into());
    }
    if text == "." || text.starts_with("..") {
        return Err("a key cannot be '.' or begin with '..'".into());
    }
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if !text.bytes().all(allowed) {
        return Err("use letters, digits, '-', '_' and '.'".into());
    }
    Ok(())
}

/// Names of environment variables.
pub(super) fn env_name(text: &str) -> Result<(), String> {
    let first = |c: u8| c.is_ascii_alphabetic() || matches!(c, b'_' | b'-' | b'.');
    if !text.bytes().next().is_some_and(first)
        || !text.bytes().all(|c| first(c) || c.is_ascii_digit())
    {
        return Err("use letters, digits, '_', '-' and '.', not beginning with a digit".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_names() {
        type Form = fn(&str) -> Result<(), String>;
        let long = "a".repeat(64);
        let cases: [(Form, &[&str], &[&str]); 6] = [
            (
                dns_label,
                &["a", "a-1", "0"],
                &["", "-a", "a-", "A", "a.b", "a_b", &long],
            ),
            (
                dns_subdomain,
                &["a.b", "a-1.b", &long],
                &["", ".", "a.", ".a", "a..b", "A.b"],
            ),
            (host, &["hello.default.localhost"], &[&long, "*.a", "a:80"]),
            (
                qualified,
                &["a", "A_b.c", "x.io/A"],
                &["", "/a", "x.io/", "a/b/c", "X/a", "-a", &long],
            ),
            (
                label_value,
                &["", "a", "A.b_c-1"],
                &["-", "a b", "a/", &long],
            ),
            (
                data_key,
                &["a", ".env", "A_b-c.d"],
                &["", ".", "..", "a/b", "a b"],
            ),
        ];
        for (form, good, bad) in cases {
            for text in good {
                assert_eq!(form(text), Ok(()), "{text}");
            }
            for text in bad {
                assert!(form(text).is_err(), "{text}");
            }
        }
        assert_eq!(env_name("A_1"), Ok(()));
        assert!(env_name("1A").is_err() && env_name("").is_err() && env_name("A=B").is_err());
    }
}
