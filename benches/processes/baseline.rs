//! `all_reduce.c`: compiled when it is needed, so that the crate need not carry it.

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use halfstep::{Dtype, Storage};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// RTLD_NOW.
const NOW: c_int = 2;

type Function = unsafe extern "C" fn(*mut c_void, c_long, c_int) -> c_int;

/// MPI's own all-reduce.
pub struct AllReduce(Function);

/// Where the library is put.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("liball_reduce.so")
}

/// Compiles it, by the wrapper that the crate's own shim was compiled with.
pub fn compile() -> Result<PathBuf, String> {
    let wrapper = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/processes/all_reduce.c");
    let mut command = Command::new(&wrapper);
    command.args(["-O3", "-march=native", "-shared", "-fPIC", "-o"]).arg(path()).arg(source);
    match command.output() {
        Ok(output) if output.status.success() => Ok(path()),
        Ok(output) => Err(format!("{wrapper}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{wrapper}: {error}")),
    }
}

impl AllReduce {
    pub fn load(compiled: &Result<PathBuf, String>) -> Result<Self, String> {
        let path = compiled.clone()?;
        let name = CString::new(path.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: a library of ours, whose loading runs nothing; the name ends with a zero.
        let library = unsafe { dlopen(name.as_ptr(), NOW) };
        if library.is_null() {
            return Err(format!("{} cannot be loaded", path.display()));
        }
        // SAFETY: as above.
        let function = unsafe { dlsym(library, c"bench_all_reduce".as_ptr()) };
        if function.is_null() {
            return Err("no bench_all_reduce in it".into());
        }
        // SAFETY: that is its type, in all_reduce.c.
        Ok(Self(unsafe { std::mem::transmute::<*mut c_void, Function>(function) }))
    }

    /// Sums f32 or bf16 over all processes, in place. No other thread calls MPI meanwhile: this crate's
    /// communication threads have nothing to do between steps.
    pub fn sum<G: Storage>(&self, values: &mut [G]) -> Result<(), String> {
        let half = G::DTYPE == Dtype::Bf16;
        // SAFETY: so many elements of that type; MPI has been started.
        let code =
            unsafe { (self.0)(values.as_mut_ptr().cast(), values.len() as c_long, half.into()) };
        if code == 0 { Ok(()) } else { Err(format!("MPI_Allreduce gave {code}")) }
    }
}
