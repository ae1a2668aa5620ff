//! What this program was built from, and by what.

use std::path::Path;

use crate::doctor::{on_path, output};

/// The commit: what `HALFSTEP_COMMIT` said when it was built, or else that of the folder it was built in, if that is here.
pub fn commit() -> String {
    if let Some(commit) = option_env!("HALFSTEP_COMMIT") {
        return commit.into();
    }
    let folder = env!("CARGO_MANIFEST_DIR");
    let here = Path::new(folder).join(".git").exists();
    let describe = ["-C", folder, "describe", "--always", "--dirty", "--abbrev=12"];
    let said = on_path("git").filter(|_| here).and_then(|git| output(&git, &describe));
    said.and_then(|text| text.lines().next().map(str::to_string)).unwrap_or("unknown".into())
}

/// The compiler of the program.
pub fn compiler() -> &'static str {
    env!("HALFSTEP_RUSTC")
}

/// The compilers of the device kernels in it.
pub fn device_compilers() -> &'static str {
    env!("HALFSTEP_DEVICE_COMPILERS")
}
