//! What this program was built from, and by what.

use std::path::Path;
use std::time::SystemTime;

use crate::doctor::{on_path, output};

/// The commit: what `HALFSTEP_COMMIT` said when it was built, or else that of the folder it was built in, if that is here;
/// where that has been moved to another since, this is said.
pub fn commit() -> String {
    if let Some(commit) = option_env!("HALFSTEP_COMMIT") {
        return commit.into();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::env::current_exe().and_then(|program| modified(&program));
    described(folder, program.ok()).unwrap_or("unknown".into())
}

/// The commit of a folder, for a program of so long ago.
fn described(folder: &Path, program: Option<SystemTime>) -> Option<String> {
    if !folder.join(".git").exists() {
        return None; // git would describe a folder above
    }
    let git = on_path("git")?;
    let ask = |args: &[&str]| {
        let text = output(&git, &[&["-C", folder.to_str()?], args].concat())?;
        text.lines().next().map(str::to_string)
    };
    let commit = ask(&["describe", "--always", "--dirty", "--abbrev=12"])?;
    // Written wherever a commit is made, or another checked out.
    let moves = ask(&["rev-parse", "--git-path", "logs/HEAD"]).map(|path| folder.join(path));
    let moved = moves.and_then(|path| modified(&path).ok());
    Some(match program.zip(moved) {
        Some((program, moved)) if program < moved => {
            format!("{commit}, or another: built before it")
        }
        _ => commit,
    })
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

/// The compiler of the program.
pub fn compiler() -> &'static str {
    env!("HALFSTEP_RUSTC")
}

/// The compilers of the device kernels in it.
pub fn device_compilers() -> &'static str {
    env!("HALFSTEP_DEVICE_COMPILERS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A commit that was made after the program is not said to be the program's.
    #[test]
    fn a_commit_is_of_a_program_that_was_built_from_it() {
        let Some(git) = on_path("git") else { return eprintln!("skipped: git is not here") };
        let folder = std::env::temp_dir().join(format!("halfstep-git-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let run = |args: &[&str]| {
            let mut git = Command::new(&git);
            git.arg("-C").arg(&folder).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
            assert!(git.args(args).output().unwrap().status.success(), "{args:?}");
        };
        assert_eq!(described(&folder, None), None);
        run(&["init", "-q"]);
        let before = SystemTime::now() - std::time::Duration::from_secs(60);
        run(&["commit", "-q", "--allow-empty", "-m", "first"]);
        let commit = described(&folder, Some(SystemTime::now())).unwrap();
        assert!(!commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
        let older = described(&folder, Some(before)).unwrap();
        assert_eq!(older, format!("{commit}, or another: built before it"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
