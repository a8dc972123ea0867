//! Wherever a guest takes memory, it is held to its limit.

use hive_functions::InvokeError;

use super::{answer, both_with};
use crate::guests::{Loaded, get, guest, handler, limits, load, silent};

async fn stopped(loaded: &Loaded) -> InvokeError {
    let error = loaded.function.handle(get()).await.unwrap_err();
    assert_eq!(loaded.function.usage().memory_bytes, 0);
    error
}

#[tokio::test]
async fn growing_page_by_page_ends_at_the_limit() {
    const PAGES: u64 = 128;
    for probe in both_with(|options| options.limits.memory_bytes = PAGES * 65536) {
        let told = answer(&probe, "/grow").await;
        let grown = told.strip_prefix("grew by ").unwrap();
        let grown: u64 = grown.split(' ').next().unwrap().parse().unwrap();
        // It had some to begin with.
        assert!(grown > PAGES / 2 && grown < PAGES, "{told}");
    }
}

#[tokio::test]
async fn what_starts_before_the_handler_has_the_same_limit() {
    let first = r#"(func $first
             (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
           (start $first)"#;
    for greedy in silent(first) {
        let error = stopped(&load(&greedy, limits())).await;
        assert_eq!(error, InvokeError::MemoryLimit(limits().memory_bytes));
    }
}

#[tokio::test]
async fn tables_do_not_grow_without_end() {
    let grow = |elements: u32| {
        guest(&format!(
            r#"(table $table 1 funcref)
               (func (export "handle") (param i32 i32)
                 (if (i32.eq
                       (table.grow $table (ref.null func) (i32.const {elements}))
                       (i32.const -1))
                   (then unreachable)))"#
        ))
    };
    assert_eq!(
        stopped(&load(&grow(90_000), limits())).await,
        InvokeError::NoResponse,
        "it grew, and that was all it did"
    );
    let error = stopped(&load(&grow(110_000), limits())).await;
    assert!(matches!(error, InvokeError::Trap(_)), "{error}");
}

#[tokio::test]
async fn a_guest_may_cope_with_what_it_does_not_get() {
    let modest = handler(
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         (drop (call $begin (local.get $out)))",
    );
    let loaded = load(&modest, limits());
    assert_eq!(loaded.function.handle(get()).await.unwrap().status(), 200);
}
