//! Media types: what registries call the things that a component can be in.

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Of one image.
pub const MANIFESTS: [&str; 2] = [OCI_MANIFEST, DOCKER_MANIFEST];

/// Of one image for several platforms.
pub const INDEXES: [&str; 2] = [OCI_INDEX, DOCKER_LIST];

/// As the CNCF's working group for WebAssembly says: a layer, and the config beside it.
pub const WASM: &str = "application/wasm";
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Layers that are components: the standard, Spin and wasm-to-oci, wasmCloud.
pub const COMPONENTS: [&str; 3] = [
    WASM,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

/// A Spin application, which says what each of its components is for. A layer today, the config in
/// images of older versions.
pub const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";

/// What people mistake for a component, told in words.
pub fn known_as(media_type: &str) -> Option<&'static str> {
    let known = [
        (
            "provider.archive.layer.v1+par",
            "a provider archive of wasmCloud",
        ),
        ("vnd.docker.image.rootfs", "a container image"),
        ("vnd.oci.image.layer.v1.tar", "a container image"),
        ("vnd.cncf.helm", "a Helm chart"),
        ("vnd.wasm.content.bundle", "an archive"),
    ];
    let found = known.iter().find(|(part, _)| media_type.contains(part));
    found.map(|(_, words)| *words)
}
