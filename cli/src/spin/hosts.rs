//! Where a Spin component may send requests, as `spec.allowedHosts` says it. Never more than was written.

/// `https://api.example.com:8443` is `api.example.com:8443`; or why it has no place here.
pub fn allowed(text: &str) -> Result<String, String> {
    if text.contains("{{") {
        return Err("variables are not there yet; write the host itself".to_owned());
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("it has no scheme, such as https://")?;
    let default_port = match scheme {
        "https" => "443",
        "http" => "80",
        "*" => "*",
        other => {
            return Err(format!(
                "a function speaks HTTP and nothing else, no {other}"
            ));
        }
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err("a host has no path; leave it out".to_owned());
    }
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (rest, default_port),
    };
    if host == "self" || host.ends_with(".spin.internal") {
        return Err("requests of a function to itself or to its like go to the swarm's ingress: name its host".to_owned());
    }
    if port != "*" && port.parse::<u16>().is_err() {
        return Err("a port is one number, or * for all".to_owned());
    }
    match (host, port) {
        ("", _) => Err("it names no host".to_owned()),
        ("*", "*") => Ok("*".to_owned()),
        ("*", _) => Err(
            "all hosts on one port cannot be said; *://*:* allows all hosts on all ports"
                .to_owned(),
        ),
        _ => Ok(format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_what_spin_means() {
        for (spin, hive) in [
            ("https://a.example", "a.example:443"),
            ("http://a.example/", "a.example:80"),
            ("http://a.example:8080", "a.example:8080"),
            ("https://*.a.example", "*.a.example:443"),
            ("https://a.example:*", "a.example:*"),
            ("*://a.example", "a.example:*"),
            ("*://a.example:81", "a.example:81"),
            ("*://*:*", "*"),
            ("*://*", "*"),
            ("https://*:*", "*"),
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://[::1]:9000", "[::1]:9000"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert_eq!(allowed(spin).as_deref(), Ok(hive), "{spin}");
        }
        for spin in [
            "a.example",
            "redis://a:6379",
            "mysql://a",
            "http://self",
            "http://b.spin.internal",
            "https://*",
            "https://a/b",
            "https://a:1..9",
            "https://",
            "https://{{ host }}",
            "http://self:80",
        ] {
            assert!(allowed(spin).is_err(), "{spin}");
        }
    }

    proptest! {
        /// Only who wrote that everything is allowed gets everything.
        #[test]
        fn nothing_is_widened(scheme in "(https|http|\\*)", host in "[a-z*.]{1,8}", port in "(:[0-9*]{1,4})?") {
            let text = format!("{scheme}://{host}{port}");
            if let Ok(entry) = allowed(&text) {
                prop_assert_eq!(entry == "*", host == "*" && (port == ":*" || (port.is_empty() && scheme == "*")));
                prop_assert!(entry == "*" || entry.starts_with(&host));
            }
        }
    }
}
