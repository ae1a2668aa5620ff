//! Compiles the MPI shim with `mpicc`, and links what `mpicc` links.

use std::process::Command;

const SHIM: &str = "src/reduce/comm/mpi/shim.c";
const CURE: &str = "install an MPI (Debian: `openmpi-bin libopenmpi-dev` or `mpich libmpich-dev`; on a cluster: \
     `module load OpenMPI`), or set MPICC; or set HALFSTEP_SKIP_KERNELS=1 to check without linking";

/// # Errors
/// What `mpicc` said, and the cure.
pub fn build() -> crate::Result<()> {
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-changed=build/mpi.rs");
    let mpicc = crate::said("MPICC").unwrap_or_else(|| "mpicc".into());
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
    link(&shown);
    Ok(())
}

/// Links what a command links.
fn link(command: &str) {
    let (mut words, mut linker) = (words(command).into_iter(), Vec::new());
    while let Some(word) = words.next() {
        if let Some(folder) = word.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(library) = word.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=dylib={library}");
        } else if let Some(options) = word.strip_prefix("-Wl,") {
            linker.extend(options.split(',').map(str::to_string));
        } else if word == "-Xlinker" {
            linker.extend(words.next());
        }
    }
    // Open MPI and MPICH write `-Wl,-rpath -Wl,FOLDER`, Intel's `-Xlinker -rpath -Xlinker FOLDER`, some with `=`.
    let mut linker = linker.iter().map(String::as_str);
    while let Some(option) = linker.next() {
        let (name, folder) = option.split_once('=').unzip();
        if let "-rpath" | "--rpath" = name.unwrap_or(option)
            && let Some(folder) = folder.or_else(|| linker.next())
        {
            // Reaches the programs of this package; others have the loader's own ways.
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
}

/// The words of a command, in which quotes may hold spaces.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words
}
