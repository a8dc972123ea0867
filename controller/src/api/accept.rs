//! What a client accepts: its `Accept` header, range by range.

use http::{HeaderMap, header};

use super::errors::ApiError;

/// One media range with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range<'a> {
    pub media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Range<'a> {
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// Plain JSON, or whatever there is.
    pub fn takes_json(&self) -> bool {
        matches!(
            self.media_type,
            "application/json" | "application/*" | "*/*"
        )
    }
}

/// In the order in which the client names them; who names none takes all.
pub(super) fn ranges(headers: &HeaderMap) -> Result<Vec<Range<'_>>, ApiError> {
    let Some(accept) = headers.get(header::ACCEPT) else {
        return Ok(vec![parse("*/*")]);
    };
    let accept = accept.to_str().map_err(|_| ApiError::NotAcceptable)?;
    Ok(accept.split(',').map(parse).collect())
}

fn parse(range: &str) -> Range<'_> {
    let mut parts = range.split(';').map(str::trim);
    Range {
        media_type: parts.next().unwrap_or_default(),
        parameters: parts.filter_map(|part| part.split_once('=')).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_read_in_order_with_their_parameters() {
        let mut headers = HeaderMap::new();
        assert!(ranges(&headers).unwrap()[0].takes_json());
        let accept =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, text/html";
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let ranges = ranges(&headers).unwrap();
        assert_eq!(ranges[0].media_type, "application/json");
        assert_eq!(ranges[0].parameter("v"), Some("v2"));
        assert_eq!(ranges[0].parameter("x"), None);
        assert_eq!(ranges[1].media_type, "text/html");
    }
}
