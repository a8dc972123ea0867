//! Between a request's headers and the context of its span, as W3C Trace Context has them.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Of version, trace, parent and flags, with a dash between each two. Later versions may say more.
const LENGTHS: [usize; 4] = [2, 32, 16, 2];

/// What every version begins with.
const LENGTH: usize = 55;

/// Longer ones are dropped whole: what others must pass on at least.
const STATE_BYTES: usize = 512;

/// Whose child the request's span is, if it says so.
pub fn parent(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Received::of(headers))
}

/// Names a span as the parent of what the headers' request is answered by.
pub fn make_parent(headers: &mut HeaderMap, span: &SpanContext) {
    let context = Context::new().with_remote_span_context(span.clone());
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
    TraceContextPropagator::new().inject_context(&context, &mut Sent(headers));
}

struct Received<'a> {
    parent: Option<&'a str>,
    state: Option<String>,
}

impl<'a> Received<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        // Of two nobody knows which is meant.
        let parent = match (parents.next(), parents.next()) {
            (Some(one), None) => one.to_str().ok().filter(|text| is_whole(text)),
            _ => None,
        };
        let states = headers.get_all(TRACESTATE).iter();
        let states: Option<Vec<&str>> = states.map(|state| state.to_str().ok()).collect();
        let state = states.map(|states| states.join(","));
        Self {
            parent,
            state: state.filter(|state| state.len() <= STATE_BYTES),
        }
    }
}

/// What reads it takes shorter parts, too.
fn is_whole(parent: &str) -> bool {
    let lengths = parent.split('-').map(str::len).take(LENGTHS.len());
    let is_fit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f' | b'-');
    let ends = parent.len() == LENGTH || !parent.starts_with("00");
    lengths.eq(LENGTHS) && parent.bytes().take(LENGTH).all(is_fit) && ends
}

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent,
            "tracestate" => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        // Of no state there is no header.
        if value.is_empty() {
            return;
        }
        let name = HeaderName::try_from(key);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
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
    fn a_parent_is_one_that_the_standard_knows() {
        for (value, is_known) in [
            (GOOD.to_owned(), true),
            (format!("cc{}-what-comes", &GOOD[2..]), true),
            (format!("ff{}", &GOOD[2..]), false),
            (format!("{GOOD}-more"), false),
            (format!("{GOOD}-"), false),
            (GOOD.to_uppercase(), false),
            (GOOD.replace("-b7ad", "-b7"), false),
            (GOOD.replace("-0af7", "-+af7"), false),
            (GOOD.replace("b7ad6b7169203331", "0000000000000000"), false),
            (String::new(), false),
        ] {
            let found = parent(&headers(&[(TRACEPARENT, &value)]));
            assert_eq!(found.has_active_span(), is_known, "{value}");
        }
        let twice = headers(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)]);
        assert!(!parent(&twice).has_active_span());
    }

    #[test]
    fn what_comes_in_goes_out_with_its_state() {
        let long = format!("a={}", "b".repeat(STATE_BYTES));
        for (states, expected) in [
            (vec![], None),
            (vec!["a=b", "c=d"], Some("a=b,c=d")),
            (vec![&*long], None),
            (vec!["no state"], None),
        ] {
            let mut all = vec![(TRACEPARENT, GOOD)];
            all.extend(states.into_iter().map(|state| (TRACESTATE, state)));
            let mut all = headers(&all);
            let context = parent(&all);
            make_parent(&mut all, context.span().span_context());
            assert_eq!(all[TRACEPARENT], GOOD);
            let state = all.get(TRACESTATE).map(|state| state.to_str().unwrap());
            assert_eq!(state, expected);
        }
    }
}
