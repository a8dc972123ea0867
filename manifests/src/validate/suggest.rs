//! Finds the name that somebody most likely meant.
//!
//! A misspelt name and the known ones flow in; the nearest comes out, or none when all are far.

/// Longer names are not typing mistakes of ours, and comparing costs the product of the lengths.
const MAX_LENGTH: usize = 64;

/// The candidate nearest to `name`: the same but for case, `_` and `-`, or at most a third of its
/// letters changed.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.is_empty() || name.len() > MAX_LENGTH {
        return None;
    }
    let name = fold(name);
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&name, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["replicas", "nodeSelector", "env", "http", "timeout"];
        for (name, expected) in [
            ("replica", Some("replicas")),
            ("node_selector", Some("nodeSelector")),
            ("NodeSelector", Some("nodeSelector")),
            ("tiemout", Some("timeout")),
            ("evn", Some("env")),
            ("htttp", Some("http")),
            ("", None),
            ("x", None),
            ("image", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
    }
}
