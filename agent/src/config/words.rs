//! What a person may write for one choice, and what it means.

use std::time::Duration;

use super::Listen;

/// A host name as a DNS label: `Pi 4.local` is called `pi-4`.
pub(super) fn sanitised(host: &str) -> Option<String> {
    let first = host.split('.').next().unwrap_or_default();
    let plain: String = first
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        })
        .take(63)
        .collect();
    let label = plain.trim_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

pub(super) fn node_name(text: &str) -> Result<String, String> {
    if sanitised(text).as_deref() == Some(text) {
        Ok(text.to_owned())
    } else {
        Err(
            "a node name has 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
                .into(),
        )
    }
}

pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let text = text.trim();
    let port = text
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse::<u16>()));
    match port {
        Some((host, Ok(1..))) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("expected host:port, as in 192.168.1.10:7443".into()),
    }
}

pub(super) fn listen(text: &str) -> Result<Listen, String> {
    if text == "none" {
        return Ok(Listen::None);
    }
    text.parse()
        .map(Listen::On)
        .map_err(|_| "expected address:port, as in 0.0.0.0:8070, or \"none\"".into())
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected key=value".into()),
    }
}

/// Bytes as Kubernetes writes them: plain, or with k, M, G, T, Ki, Mi, Gi or Ti.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected an amount of memory, as in 512Mi or 2Gi".into())
}

/// Whole seconds, minutes or hours: `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?.parse::<u64>().ok()?, seconds)))
        .and_then(|(number, seconds)| number.checked_mul(*seconds))
        .map(Duration::from_secs)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "expected a time, as in 30s, 5m or 1h".into())
}

/// Thousandths of a processor: `2`, `0.5` or `1500m`.
pub(super) fn millis(text: &str) -> Result<u32, String> {
    let millis = match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => text
            .parse::<f64>()
            .ok()
            .map(|cores| (cores * 1000.0).round() as u32),
    };
    millis
        .filter(|millis| *millis > 0)
        .ok_or_else(|| "expected an amount of processors, as in 2, 0.5 or 1500m".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn host_names_become_labels() {
        for (host, name) in [
            ("Pi 4.local", Some("pi-4")),
            ("localhost", Some("localhost")),
            ("-x_y-", Some("x-y")),
            ("...", None),
            ("日本", None),
        ] {
            assert_eq!(sanitised(host).as_deref(), name, "{host}");
        }
        assert_eq!(sanitised(&"a".repeat(80)).unwrap().len(), 63);
    }
}
