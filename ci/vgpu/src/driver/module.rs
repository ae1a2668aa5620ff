//! Code, whichever vendor's: what the driver asks of an interpreter.
//!
//! Another interpreter is one more arm of each `match`, and nothing else in this folder.

use std::sync::{Arc, Mutex};

use crate::driver::error::Error;
use crate::driver::model::Vendor;
use crate::launch::{Checks, Grid, Report};
use crate::memory::GlobalMemory;
use crate::{gfx, ptx};

/// Why an image is refused: the code, and the words for whoever reads the output.
pub type Refusal = (Error, String);

/// A loaded image.
#[derive(Debug)]
pub enum Code {
    /// PTX.
    Ptx(ptx::Loaded),
    /// A code object for gfx90a.
    Gfx(gfx::Loaded),
}

/// A kernel, ready to run.
#[derive(Debug)]
pub enum Kernel {
    /// Of PTX.
    Ptx(Arc<ptx::Program>),
    /// Of a code object.
    Gfx(Arc<gfx::Program>),
}

/// What the driver and its callers ask about a kernel.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Offset and size of each parameter.
    pub parameters: Vec<(usize, usize)>,
    /// Bytes of all parameters.
    pub parameter_bytes: usize,
    /// Bytes of shared memory that it declares.
    pub shared: u32,
    /// Bytes of local memory of a thread, as far as it is known without its code.
    pub local: u32,
    /// Registers of a thread, where the image says it.
    pub registers: Option<u32>,
    /// Most threads of a block.
    pub max_threads: u32,
}

/// A module of PTX, read if it is none of the last few that the process read: programs load one image
/// for every device, again and again.
fn read(text: &str) -> Result<Arc<ptx::Module>, ptx::PtxError> {
    const FEW: usize = 4;
    type Known = (Box<str>, Arc<ptx::Module>);
    static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(|error| error.into_inner());
    if let Some((_, module)) = known.iter().find(|(other, _)| **other == *text) {
        return Ok(module.clone());
    }
    let module = ptx::Module::parse(text)?;
    known.insert(0, (text.into(), module.clone()));
    known.truncate(FEW);
    Ok(module)
}

impl Code {
    /// Reads an image and puts its variables in memory.
    pub fn load(vendor: Vendor, image: &[u8], memory: &mut GlobalMemory) -> Result<Self, Refusal> {
        match vendor {
            Vendor::Nvidia => {
                if image.starts_with(b"\x7fELF") {
                    let what = "a cubin: SASS is not executed here, give the PTX";
                    return Err((Error::NoBinary, what.into()));
                }
                if image.starts_with(&0xba55_ed50_u32.to_le_bytes()) {
                    let what = "a fat binary: it is not opened here, give the PTX";
                    return Err((Error::NoBinary, what.into()));
                }
                let text = std::str::from_utf8(image)
                    .map_err(|error| (Error::InvalidImage, format!("no text: {error}")))?;
                let loaded = read(text).and_then(|module| module.load(memory));
                loaded.map(Self::Ptx).map_err(|error| (Error::InvalidCode, error.to_string()))
            }
            Vendor::Amd => {
                let object = gfx::CodeObject::parse(image)
                    .map_err(|error| (Error::NoBinary, error.to_string()))?;
                let loaded = object.load(memory);
                loaded.map(Self::Gfx).map_err(|error| (Error::InvalidImage, error.to_string()))
            }
        }
    }

    /// Names of the kernels.
    pub fn kernels(&self) -> Vec<String> {
        match self {
            Self::Ptx(loaded) => loaded.kernels().map(String::from).collect(),
            Self::Gfx(loaded) => loaded.kernels().map(String::from).collect(),
        }
    }

    /// What is known of a kernel before its code is looked at.
    pub fn facts(&self, name: &str) -> Result<Facts, Refusal> {
        let found = match self {
            Self::Ptx(loaded) => loaded.kernels().any(|kernel| kernel == name),
            Self::Gfx(loaded) => loaded.kernels().any(|kernel| kernel == name),
        };
        if !found {
            return Err((Error::NotFound, format!("no kernel {name}")));
        }
        let outline = match self {
            Self::Ptx(loaded) => {
                let outline = loaded.outline(name).map_err(|error| error.to_string());
                outline.map(|program| Kernel::Ptx(Arc::new(program)))
            }
            Self::Gfx(loaded) => {
                let outline = loaded.outline(name).map_err(|error| error.to_string());
                outline.map(|program| Kernel::Gfx(Arc::new(program)))
            }
        };
        let refuse = |what| (Error::InvalidCode, format!("{name}: {what}"));
        outline.map(|kernel| kernel.facts()).map_err(refuse)
    }

    /// Makes a kernel ready.
    pub fn kernel(&self, name: &str) -> Result<Kernel, Refusal> {
        let kernel = match self {
            Self::Ptx(loaded) => {
                loaded.program(name).map(Kernel::Ptx).map_err(|error| error.to_string())
            }
            Self::Gfx(loaded) => {
                let program = loaded.program(name).map_err(|error| error.to_string());
                program.map(|program| Kernel::Gfx(Arc::new(program)))
            }
        };
        kernel.map_err(|what| (Error::InvalidCode, format!("{name}: {what}")))
    }

    /// Address and bytes of a variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        match self {
            Self::Ptx(loaded) => loaded.global(name),
            Self::Gfx(loaded) => loaded.global(name),
        }
    }

    /// Addresses of what loading allocated.
    pub fn variables(&self) -> Vec<u64> {
        match self {
            Self::Ptx(loaded) => loaded.globals().map(|(address, _)| address).collect(),
            Self::Gfx(loaded) => vec![loaded.base()],
        }
    }
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Ptx(program) => &program.name,
            Self::Gfx(program) => &program.name,
        }
    }

    /// What is known of it.
    pub fn facts(&self) -> Facts {
        let place = |offset: u64, size: u64| (offset as usize, size as usize);
        let threads = |required: Option<[u32; 3]>, most: Option<u32>| {
            required.map(|block| block.iter().product()).or(most).unwrap_or(1024)
        };
        match self {
            Self::Ptx(program) => Facts {
                parameters: program.parameters.iter().map(|p| place(p.offset, p.size)).collect(),
                parameter_bytes: program.parameter_bytes() as usize,
                shared: program.shared as u32,
                local: program.local() as u32,
                registers: None,
                max_threads: threads(program.required_block, program.max_threads),
            },
            Self::Gfx(program) => Facts {
                parameters: program.parameters.iter().map(|p| place(p.offset, p.size)).collect(),
                parameter_bytes: program.parameter_bytes() as usize,
                shared: program.shared as u32,
                local: program.private(),
                registers: Some(program.registers().0.into()),
                max_threads: threads(program.required_block, program.max_threads),
            },
        }
    }

    /// Runs it.
    pub fn run(
        &self,
        grid: Grid,
        params: &[u8],
        memory: &mut GlobalMemory,
    ) -> Result<Report, String> {
        match self {
            Self::Ptx(program) => ptx::launch(program, grid, params, memory, Checks::default())
                .map_err(|error| error.to_string()),
            Self::Gfx(program) => gfx::launch(program, grid, params, memory, Checks::default())
                .map_err(|error| error.to_string()),
        }
    }
}
