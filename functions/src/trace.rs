//! Which trace a request belongs to, as its caller says by W3C Trace Context.
//!
//! A node is no participant of the trace: the headers go to the guest as they came to the node. What the
//! guest sends for the request goes on with the same trace, unless the guest says which by itself.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What every version begins with: version, trace, parent and flags, with a dash between each two.
const LENGTH: usize = 55;

/// Where the id of the trace is in it.
const TRACE_ID: std::ops::Range<usize> = 3..35;

/// Longer ones are dropped whole: what others must pass on at least, and as many members as there may be.
const STATE_BYTES: usize = 512;
const STATE_MEMBERS: usize = 32;

/// Of a request that has a good `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    id: Arc<str>,
    parent: HeaderValue,
    state: Vec<HeaderValue>,
}

impl Trace {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (parent, None) = (parents.next()?, parents.next()) else {
            return None;
        };
        if !is_good(parent.as_bytes()) {
            return None;
        }
        let id = parent.to_str().ok()?.get(TRACE_ID)?.into();
        let mut state: Vec<_> = headers.get_all(TRACESTATE).iter().cloned().collect();
        if !is_bearable(&state) {
            state.clear();
        }
        Some(Self {
            id,
            parent: parent.clone(),
            state,
        })
    }

    /// 32 hexadecimal digits.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Makes a request part of it that says nothing of a trace.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        if headers.contains_key(TRACEPARENT) {
            return;
        }
        headers.insert(TRACEPARENT, self.parent.clone());
        // Of no trace, or of another one.
        headers.remove(TRACESTATE);
        for state in &self.state {
            headers.append(TRACESTATE, state.clone());
        }
    }
}

fn is_good(parent: &[u8]) -> bool {
    let Some((known, beyond)) = parent.split_at_checked(LENGTH) else {
        return false;
    };
    let is_hex = |part: &[u8]| {
        part.iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let mut parts = known.split(|byte| *byte == b'-');
    let parts = [(); 4].map(|()| parts.next().unwrap_or_default());
    let [version, trace, span, _] = parts;
    let ends = match version {
        b"00" => beyond.is_empty(),
        // A later one may say more.
        _ => beyond.is_empty() || beyond[0] == b'-',
    };
    parts.map(<[u8]>::len) == [2, 32, 16, 2]
        && parts.into_iter().all(is_hex)
        && version != b"ff"
        && !is_zero(trace)
        && !is_zero(span)
        && ends
}

fn is_bearable(state: &[HeaderValue]) -> bool {
    let bytes: usize = state.iter().map(HeaderValue::len).sum();
    let members = state
        .iter()
        .flat_map(|part| part.as_bytes().split(|byte| *byte == b','));
    bytes <= STATE_BYTES && members.count() <= STATE_MEMBERS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_traceparent_is_one_that_the_standard_knows() {
        let of_version = |version: &str, end: &str| format!("{version}{}{end}", &GOOD[2..]);
        for (value, is_known) in [
            (GOOD.to_owned(), true),
            (of_version("cc", ""), true),
            (of_version("cc", "-what-comes"), true),
            (of_version("cc", ".what-comes"), false),
            (of_version("00", "-what-comes"), false),
            (of_version("ff", ""), false),
            (of_version("0x", ""), false),
            (GOOD.to_uppercase(), false),
            (GOOD.replace("b7ad6b7169203331", "0000000000000000"), false),
            (
                GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
                false,
            ),
            (GOOD.replace("-01", "-1"), false),
            (GOOD.replacen('-', "0", 1), false),
            (String::new(), false),
            ("-".repeat(LENGTH), false),
        ] {
            let found = Trace::of(&headers(&[(TRACEPARENT, &value)]));
            assert_eq!(found.is_some(), is_known, "{value}");
            if let Some(found) = found {
                assert_eq!(&**found.id(), "0af7651916cd43dd8448eb211c80319c");
            }
        }
        let twice = headers(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)]);
        assert_eq!(Trace::of(&twice), None);
    }

    #[test]
    fn a_request_without_a_trace_gets_it_with_its_state() {
        let (long, many) = (format!("a={}", "b".repeat(511)), vec!["a=b"; 33].join(","));
        for (state, passed_on) in [
            (vec![], vec![]),
            (vec!["a=b", "c=d"], vec!["a=b", "c=d"]),
            (vec![&*long], vec![]),
            (vec![&*many], vec![]),
        ] {
            let mut of_request = vec![(TRACEPARENT, GOOD)];
            of_request.extend(state.into_iter().map(|state| (TRACESTATE, state)));
            let trace = Trace::of(&headers(&of_request)).unwrap();

            let mut bare = headers(&[(TRACESTATE, "of=nothing")]);
            trace.add_to(&mut bare);
            assert_eq!(bare[TRACEPARENT], GOOD);
            let found: Vec<_> = bare.get_all(TRACESTATE).iter().collect();
            assert_eq!(found, passed_on);

            let own = headers(&[(TRACEPARENT, "its own"), (TRACESTATE, "e=f")]);
            let mut same = own.clone();
            trace.add_to(&mut same);
            assert_eq!(same, own);
        }
    }
}
