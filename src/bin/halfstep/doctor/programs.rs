//! Programs: where they are, and what version they say they are.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::finding::Finding;

/// How long a program may take to say something.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that a program may say: more than any list of libraries has.
const MOST: u64 = 16 << 20;
/// How long what it has said may take to get here once it has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Whether a program of that name is on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a program prints; none if it cannot be run, fails, takes too long, or says too much.
pub fn output(program: &Path, args: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // Beyond that nobody reads: who goes on writing fails.
    let mut pipe = child.stdout.take()?.take(MOST);
    // Read beside waiting: a full pipe would keep the program from ending. What it started may keep the pipe open,
    // so the reader is left to itself in the end.
    let (sender, pieces) = channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            _ => break None,
        }
    };
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    };
    let (ended, mut bytes) = (Instant::now(), Vec::new());
    loop {
        let left = GRACE.saturating_sub(ended.elapsed());
        match pieces.recv_timeout(left) {
            Ok(piece) if !left.is_zero() => bytes.extend(piece),
            _ => break,
        }
    }
    status.success().then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// The line that has a number with a dot in it, which is where programs put their version.
fn version(text: &str) -> Option<&str> {
    let numbered = |line: &&str| {
        let bytes = line.as_bytes();
        bytes.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit())
    };
    text.lines().map(str::trim).find(numbered)
}

/// A compiler of device code, found as the build finds it.
struct Toolkit {
    name: &'static str,
    variable: &'static str,
    roots: [&'static str; 2],
    usual: &'static str,
    feature: bool,
}

const TOOLKITS: [Toolkit; 2] = [
    Toolkit {
        name: "nvcc",
        variable: "NVCC",
        roots: ["CUDA_HOME", "CUDA_PATH"],
        usual: "/usr/local/cuda/bin/nvcc",
        feature: cfg!(feature = "cuda"),
    },
    Toolkit {
        name: "hipcc",
        variable: "HIPCC",
        roots: ["ROCM_PATH", "HIP_PATH"],
        usual: "/opt/rocm/bin/hipcc",
        feature: cfg!(feature = "hip"),
    },
];

/// Compilers matter to the next build, not to this program: their absence is a note.
pub fn toolkits(env: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    TOOLKITS.iter().map(|toolkit| look(toolkit, env)).collect()
}

fn look(toolkit: &Toolkit, env: &dyn Fn(&str) -> Option<String>) -> Finding {
    let Toolkit { name, variable, roots, usual, feature } = toolkit;
    if let Some(path) = env(variable)
        .filter(|path| !path.is_empty())
        .filter(|path| !Path::new(path).is_file() && on_path(path).is_none())
    {
        let cure = format!("unset {variable}, or set it to a compiler");
        return Finding::problem(format!("{variable} is {path}, which is not there"), cure);
    }
    let named = env(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let rooted = roots
        .iter()
        .filter_map(|root| env(root))
        .map(|root| Path::new(&root).join("bin").join(name))
        .find(|path| path.is_file());
    let usual = Some(PathBuf::from(usual)).filter(|path| path.is_file());
    match named.or(rooted).or_else(|| on_path(name)).or(usual) {
        Some(path) => {
            let said = output(&path, &["--version"]);
            let version = said.as_deref().and_then(|text| {
                // nvcc's version is in its line with "release".
                text.lines().find(|line| line.contains("release")).or_else(|| version(text))
            });
            let version = version.unwrap_or("says no version").trim();
            Finding::fine(format!("{}: {version}", path.display()))
        }
        None if *feature => Finding::note(format!(
            "{name} is not found ({variable}, {}, PATH): needed to build again, not to run",
            roots.join(", ")
        )),
        None => Finding::note(format!("{name} is not found; this build does not need it")),
    }
}

/// What the MPI of a compiler says of itself; asked for its version, the compiler tells that of gcc. Open MPI's has an
/// option, MPICH a program beside it.
fn library_of(mpicc: &Path) -> Option<String> {
    output(mpicc, &["--showme:version"])
        .or_else(|| output(&mpicc.with_file_name("mpichversion"), &[]))
        .or_else(|| output(&on_path("mpichversion")?, &[]))
}

/// MPI's launcher and compiler.
pub fn mpi() -> Vec<Finding> {
    let found = ["mpirun", "mpiexec", "srun", "mpicc", "cc"].map(|name| (name, on_path(name)));
    let mut lines: Vec<Finding> = found
        .iter()
        .filter(|(name, _)| *name != "cc" || std::env::var_os("CRAY_MPICH_DIR").is_some())
        .filter_map(|(name, path)| {
            let path = path.as_ref()?;
            let said = match *name {
                "mpicc" => library_of(path),
                _ => output(path, &["--version"]),
            };
            let version = said.as_deref().and_then(version).unwrap_or("says no version");
            Some(Finding::fine(format!("{name}: {version}")))
        })
        .collect();
    if lines.is_empty() {
        lines.push(Finding::note(
            "no MPI (mpirun, mpicc) and no srun: ranks are threads of one process",
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let nvcc =
            "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.48";
        assert_eq!(version(nvcc), nvcc.lines().nth(1));
        assert_eq!(
            version("mpirun (Open MPI) 4.1.4\n\nReport bugs to …"),
            Some("mpirun (Open MPI) 4.1.4")
        );
        let mpicc = "mpicc: Open MPI 4.1.4 (Language: C)\n";
        assert_eq!(version(mpicc), Some(mpicc.trim()));
        let mpich = "MPICH Version:    \t4.0\nMPICH Release date:\tFri Jan 21 10:42:29 CST 2022";
        assert_eq!(version(mpich), Some("MPICH Version:    \t4.0"));
        assert_eq!(version("no numbers. 1 . 2"), None);
    }

    #[test]
    fn programs_that_fail_or_are_not_there_say_nothing() {
        let sh = on_path("sh").unwrap();
        assert_eq!(output(&sh, &["-c", "echo one; exit 0"]).as_deref(), Some("one\n"));
        assert_eq!(output(&sh, &["-c", "echo one; exit 3"]), None);
        assert_eq!(output(&sh, &["-c", "head -c 20000000 /dev/zero"]), None);
        assert_eq!(output(Path::new("no/such/program"), &[]), None);
        assert!(on_path("no-such-program").is_none());
    }

    /// What a program leaves behind holds its pipe: what it said itself is known without that one's end.
    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        let sh = on_path("sh").unwrap();
        let said = output(&sh, &["-c", "echo one; (sleep 30; echo two) &"]);
        assert_eq!(said.as_deref(), Some("one\n"));
    }

    #[test]
    fn a_compiler_that_is_named_and_not_there_is_a_problem() {
        let env = |name: &str| (name == "NVCC").then(|| "no/such/nvcc".to_string());
        let found = toolkits(&env);
        assert_eq!(found[0].level, super::super::finding::Level::Problem);
        assert!(found[0].cure.as_deref().unwrap().contains("unset NVCC"));
    }
}
