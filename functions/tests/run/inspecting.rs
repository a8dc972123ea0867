//! What an upload is told before anything compiles it.

use hive_functions::{ComponentInfo, InspectError, InspectLimits, World, inspect};
use proptest::prelude::*;

use crate::guests::{JAVASCRIPT_0_3, RUST_0_2, guest_with_memory, handler};

fn inspected(bytes: &[u8]) -> Result<ComponentInfo, InspectError> {
    inspect(
        bytes,
        InspectLimits {
            max_memory: 64 << 20,
        },
    )
}

#[test]
fn real_components_are_what_they_are() {
    let rust = inspected(RUST_0_2).unwrap();
    assert_eq!(rust.world, World::Wasi02);
    assert!(rust.initial_memory_bytes >= 65536);
    assert!(
        rust.imports
            .iter()
            .any(|name| name.starts_with("wasi:http/types@0.2"))
    );
    assert_eq!(inspected(JAVASCRIPT_0_3).unwrap().world, World::Wasi03);
    assert_eq!(inspected(&handler("")).unwrap().initial_memory_bytes, 65536);
}

#[test]
fn what_is_no_component_is_told_what_it_is() {
    assert!(matches!(inspected(b""), Err(InspectError::NotWasm)));
    assert!(matches!(
        inspected(b"#!/bin/sh\n"),
        Err(InspectError::NotWasm)
    ));
    let module = wat::parse_str("(module (memory 1))").unwrap();
    let error = inspected(&module).unwrap_err();
    assert!(matches!(error, InspectError::CoreModule));
    assert!(error.to_string().contains("wasm32-wasip2"), "{error}");
}

#[test]
fn a_component_that_handles_no_http_is_told_what_it_exports() {
    let command = wat::parse_str(
        r#"(component (instance $run) (export "wasi:cli/run@0.2.0" (instance $run)))"#,
    );
    let error = inspected(&command.unwrap()).unwrap_err();
    assert!(matches!(error, InspectError::WrongWorld { .. }), "{error}");
    assert!(error.to_string().contains("wasi:cli/run@0.2.0"), "{error}");
    let empty = inspected(&wat::parse_str("(component)").unwrap()).unwrap_err();
    assert!(empty.to_string().contains("nothing"), "{empty}");
}

#[test]
fn imports_that_functions_do_not_get_are_named() {
    let component = wat::parse_str(
        r#"(component
             (import "wasi:blobstore/container@0.2.0-draft" (instance))
             (import "wasi:random/random@0.2.0" (instance))
             (instance $h)
             (export "wasi:http/incoming-handler@0.2.0" (instance $h)))"#,
    );
    let error = inspected(&component.unwrap()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("wasi:blobstore/container@0.2.0-draft"),
        "{error}"
    );
    assert!(!error.to_string().contains("wasi:random"), "{error}");
}

#[test]
fn memory_over_the_limit_names_both_and_the_field() {
    let main = r#"(func (export "handle") (param i32 i32))"#;
    let error = inspected(&guest_with_memory(2000, main)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("131072000") && text.contains("67108864"),
        "{text}"
    );
    assert!(text.contains("spec.resources.memory"), "{text}");
}

#[test]
fn a_component_cut_off_anywhere_is_refused() {
    for length in (4..RUST_0_2.len()).step_by(997) {
        let error = inspected(&RUST_0_2[..length]).unwrap_err();
        match error {
            InspectError::Malformed { offset, .. } => assert!(offset <= length as u64),
            // Cut between two sections: all that is there is whole.
            InspectError::WrongWorld { .. } => {}
            error => panic!("{length}: {error}"),
        }
    }
}

proptest! {
    /// Uploads are strangers' bytes: whatever is in them, the answer is an answer.
    #[test]
    fn damaged_components_never_panic(at in 0..RUST_0_2.len(), value in any::<u8>()) {
        let mut bytes = RUST_0_2.to_vec();
        bytes[at] = value;
        let _ = inspected(&bytes);
    }
}
