//! What strangers upload and name, damaged in every way.

#![allow(clippy::unwrap_used)]

use hive_fuzz::Target;

use super::*;

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

#[cfg(feature = "compile")]
#[test]
fn components_are_looked_at_or_refused() {
    let handler = r#"(component
        (core module $m (memory 1) (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (instance $h (export "handle" (func $f)))
        (export "wasi:http/incoming-handler@0.2.0" (instance $h)))"#;
    let importing = r#"(component
        (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func))))
        (component (core module (memory 3 4))))"#;
    // A module that says it has 626,672 exports, in a section of 13 bytes.
    let claims = b"\x01\x17\0asm\x01\0\0\0\x07\x0d\xf0\x9f\xa6\0\x01f\0\0\x01g\0\0\0";
    let limits = InspectLimits {
        max_memory: 1 << 20,
    };
    Target::new("components", |input: &[u8]| {
        let info = inspect(input, limits).map_err(|error| error.to_string())?;
        assert!(info.initial_memory_bytes <= limits.max_memory);
        Ok::<_, String>(())
    })
    .seeds([wat::parse_str(handler).unwrap()])
    .words([
        wat::parse_str(importing).unwrap(),
        wat::parse_str("(module (memory 65536))").unwrap(),
        claims.to_vec(),
        b"wasi:http/handler@0.3.0".to_vec(),
        b"\0asm\x0d\0\x01\0".to_vec(),
    ])
    .at_most(8 * 1024)
    .memory(8 << 20)
    .hold();
}

#[cfg(feature = "run")]
#[test]
fn allowed_hosts_are_read_or_refused() {
    Target::new("allowed_hosts", |input: &[u8]| {
        let text = hive_fuzz::text(input)?;
        let (pattern, uri) = text.split_once('\n').unwrap_or((text, "http://a.example/"));
        let allowed = AllowedHosts::parse(&[pattern]).map_err(|error| error.to_string())?;
        if let Ok(uri) = uri.parse::<http::Uri>() {
            let is_allowed = allowed.allow(&uri);
            assert!(!is_allowed || uri.host().is_some());
            assert!(
                !AllowedHosts::default().allow(&uri),
                "nothing is allowed by nothing"
            );
        }
        Ok::<_, String>(())
    })
    .seeds([
        "*.example.com:8080\nhttps://a.example.com:8080/x",
        "[::1]:80\nhttp://[::1]/",
        "*\nhttp://b/",
        "host\nhttp://HOST./",
    ])
    .words([
        "*.", ":", "[", "]", "http://", "https://", "@", ":80", ":443", "\n",
    ])
    .at_most(1024)
    .hold();
}
