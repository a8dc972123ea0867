//! Looks at an uploaded file and says whether it can be a function, without compiling it.
//!
//! Bytes of strangers flow through: only their structure is validated, function bodies are left to
//! the compiler. What is refused here is refused with a message that says what to do.

use std::collections::BTreeSet;

use wasmparser::{
    BinaryReaderError, Encoding, FromReader, MemoryType, Parser, Payload, SectionLimited,
    Validator, WasmFeatures,
};

mod host;

const PAGE: u64 = 64 * 1024;

/// Which of the two worlds a component is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Exports `wasi:http/incoming-handler@0.2.x`.
    Wasi02,
    /// Exports `wasi:http/handler@0.3.x`.
    Wasi03,
}

/// What a component that can be a function asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentInfo {
    pub world: World,
    /// Sum over the memories of its modules, before they grow.
    pub initial_memory_bytes: u64,
    /// Interfaces, sorted.
    pub imports: Vec<String>,
}

/// What the function that the component is for may use.
#[derive(Debug, Clone, Copy)]
pub struct InspectLimits {
    /// Bytes.
    pub max_memory: u64,
}

/// Why a file cannot be a function. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("this is not a WebAssembly component: it does not start with \\0asm")]
    NotWasm,
    #[error(
        "this is a core module, not a component: build it for wasm32-wasip2, or wrap it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    #[error("the component is damaged or cut off at byte {offset}")]
    Malformed {
        offset: u64,
        #[source]
        source: BinaryReaderError,
    },
    #[error(
        "the component handles no HTTP requests: it exports neither wasi:http/incoming-handler@0.2 \
         nor wasi:http/handler@0.3, but {}",
        listed(exports)
    )]
    WrongWorld { exports: Vec<String> },
    #[error(
        "the component imports {}, which functions do not get",
        listed(interfaces)
    )]
    UnknownImports { interfaces: Vec<String> },
    #[error(
        "the component starts with {initial} bytes of memory, more than the {limit} of \
         spec.resources.memory"
    )]
    Memory { initial: u64, limit: u64 },
}

impl From<BinaryReaderError> for InspectError {
    fn from(source: BinaryReaderError) -> Self {
        Self::Malformed {
            offset: source.offset() as u64,
            source,
        }
    }
}

/// Looks at `bytes`: milliseconds, also for the largest.
pub fn inspect(bytes: &[u8], limits: InspectLimits) -> Result<ComponentInfo, InspectError> {
    let mut imports = BTreeSet::new();
    let mut exports = Vec::new();
    let mut initial_memory_bytes: u64 = 0;
    // How many modules and components enclose the section at hand; the component itself is 1.
    let mut depth = 0;
    // Every feature: whether the engine has it is the compiler's to say, with its own message.
    let mut validator = Validator::new_with_features(WasmFeatures::all());

    if !bytes.starts_with(b"\0asm") {
        return Err(InspectError::NotWasm);
    }
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        if let Payload::Version { encoding, .. } = &payload {
            if depth == 0 && *encoding == Encoding::Module {
                return Err(InspectError::CoreModule);
            }
            depth += 1;
        }
        counts_hold(&payload)?;
        validator.payload(&payload)?;
        match payload {
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.insert(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    initial_memory_bytes = initial_memory_bytes.saturating_add(initial(&memory?));
                }
            }
            Payload::End(_) => depth -= 1,
            _ => {}
        }
    }

    let Some(world) = world(&exports) else {
        return Err(InspectError::WrongWorld { exports });
    };
    let interfaces: Vec<_> = imports
        .iter()
        .filter(|name| !host::provides(name))
        .cloned()
        .collect();
    if !interfaces.is_empty() {
        return Err(InspectError::UnknownImports { interfaces });
    }
    if initial_memory_bytes > limits.max_memory {
        return Err(InspectError::Memory {
            initial: initial_memory_bytes,
            limit: limits.max_memory,
        });
    }
    Ok(ComponentInfo {
        world,
        initial_memory_bytes,
        imports: imports.into_iter().collect(),
    })
}

/// The newer world wins when a component exports both, as it does when it runs.
/// Refuses sections that announce more entries than they have bytes: the validator makes room for as
/// many as are announced, so that a few bytes would cost 100 MB.
fn counts_hold(payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
    match payload {
        Payload::TypeSection(section) => holds(section),
        Payload::ImportSection(section) => holds(section),
        Payload::FunctionSection(section) => holds(section),
        Payload::TableSection(section) => holds(section),
        Payload::MemorySection(section) => holds(section),
        Payload::TagSection(section) => holds(section),
        Payload::GlobalSection(section) => holds(section),
        Payload::ExportSection(section) => holds(section),
        Payload::ElementSection(section) => holds(section),
        Payload::DataSection(section) => holds(section),
        Payload::InstanceSection(section) => holds(section),
        Payload::CoreTypeSection(section) => holds(section),
        Payload::ComponentInstanceSection(section) => holds(section),
        Payload::ComponentAliasSection(section) => holds(section),
        Payload::ComponentTypeSection(section) => holds(section),
        Payload::ComponentCanonicalSection(section) => holds(section),
        Payload::ComponentImportSection(section) => holds(section),
        Payload::ComponentExportSection(section) => holds(section),
        _ => Ok(()),
    }
}

/// Every entry has a byte at least, so reading too many of them ends with the reader's own error.
fn holds<'a, T: FromReader<'a>>(section: &SectionLimited<'a, T>) -> Result<(), BinaryReaderError> {
    if section.count() as usize > section.range().len() {
        section
            .clone()
            .into_iter()
            .try_for_each(|entry| entry.map(drop))?;
    }
    Ok(())
}

fn world(exports: &[String]) -> Option<World> {
    let exports_any = |interface, minor| {
        exports
            .iter()
            .filter_map(|name| host::Interface::parse(name))
            .any(|it| it.package == "wasi:http" && it.name == interface && it.is_minor(minor))
    };
    if exports_any("handler", 3) {
        Some(World::Wasi03)
    } else if exports_any("incoming-handler", 2) {
        Some(World::Wasi02)
    } else {
        None
    }
}

fn initial(memory: &MemoryType) -> u64 {
    let page = memory.page_size_log2.map_or(PAGE, |log2| 1 << log2.min(16));
    memory.initial.saturating_mul(page)
}

fn listed(names: &[String]) -> String {
    /// More than this many names say nothing more.
    const SHOWN: usize = 8;
    match names {
        [] => "nothing".to_owned(),
        names if names.len() <= SHOWN => names.join(", "),
        names => format!(
            "{} and {} more",
            names[..SHOWN].join(", "),
            names.len() - SHOWN
        ),
    }
}
