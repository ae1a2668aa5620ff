//! Compiles the MPI shim with `mpicc`, and links what `mpicc` links.

use std::env;
use std::process::Command;

const SHIM: &str = "src/reduce/comm/mpi/shim.c";
const CURE: &str = "install an MPI (Debian: `openmpi-bin libopenmpi-dev` or `mpich libmpich-dev`; on a cluster: \
     `module load OpenMPI`), or set MPICC; or set HALFSTEP_SKIP_KERNELS=1 to check without linking";

/// # Errors
/// What `mpicc` said, and the cure.
pub fn build() -> crate::Result<()> {
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-changed=build/mpi.rs");
    println!("cargo:rerun-if-env-changed=MPICC");
    let mpicc = env::var_os("MPICC").unwrap_or_else(|| "mpicc".into());
    let name = mpicc.to_string_lossy().into_owned();
    // Open MPI, MPICH and their descendants print the whole command for this option.
    let shown = Command::new(&mpicc).arg("-show").output();
    let shown = match shown {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)?,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("feature `mpi`: {name} -show failed: {said}\ncure: {CURE}").into());
        }
        Err(error) => {
            return Err(format!("feature `mpi` needs mpicc; {name}: {error}\ncure: {CURE}").into());
        }
    };
    cc::Build::new()
        .compiler(&mpicc)
        .file(SHIM)
        .std("c11")
        .warnings_into_errors(false)
        .try_compile("halfstep_mpi")
        .map_err(|error| format!("feature `mpi`: {name} cannot compile {SHIM}: {error}"))?;
    for flag in shown.split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=dylib={library}");
        } else if flag.starts_with("-Wl,") && flag.contains("-rpath") {
            // Reaches the programs of this package; others have the loader's own ways.
            println!("cargo:rustc-link-arg={flag}");
        }
    }
    Ok(())
}
