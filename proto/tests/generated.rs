//! The committed Rust code of `proto/hive/v1/*.proto` is what the compiler makes of it today.
//! `HIVE_BLESS=1 cargo test -p hive-proto --test generated` rewrites it. No system `protoc` is used.

use std::fs;
use std::path::Path;

/// The fields that carry artifacts, snapshots, Raft entries and assignments: kept as slices of the received
/// message, so megabytes aren't copied once more per hop.
const ZERO_COPY_FIELDS: [&str; 7] = [
    ".hive.v1.DesiredEntry.assignment",
    ".hive.v1.ArtifactChunk.data",
    ".hive.v1.ArtifactChunk.zstd",
    ".hive.v1.PutArtifactChunk.data",
    ".hive.v1.SnapshotChunk.header",
    ".hive.v1.SnapshotChunk.data",
    ".hive.v1.RaftMessage.body",
];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(
        [
            "hive/v1/gateway.proto",
            "hive/v1/invoke.proto",
            "hive/v1/peers.proto",
            "hive/v1/tunnel.proto",
        ],
        [root.join("proto")],
    )
    .expect("the .proto files compile");

    let out = tempfile::tempdir().expect("a temporary directory");
    let mut builder = tonic_prost_build::configure()
        .out_dir(out.path())
        // Assignments are hashed in their encoded form: equal maps must encode equally.
        .btree_map(".")
        .build_transport(false)
        .emit_rerun_if_changed(false);
    for field in ZERO_COPY_FIELDS {
        builder = builder.bytes(field);
    }
    builder.compile_fds(descriptors).expect("code generation");

    let fresh = fs::read_to_string(out.path().join("hive.v1.rs")).expect("the generated file");
    let committed_path = root.join("src/generated/hive.v1.rs");
    if std::env::var_os("HIVE_BLESS").is_some() {
        fs::write(&committed_path, fresh).expect("write the generated file");
        return;
    }
    let committed = fs::read_to_string(&committed_path).expect("the committed file");
    assert!(
        committed == fresh,
        "{} is stale: run HIVE_BLESS=1 cargo test -p hive-proto --test generated",
        committed_path.display()
    );
}
