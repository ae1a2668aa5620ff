//! Rules about the source itself, so that they do not depend on anybody's memory.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else {
                found.push(entry);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).ok()?;
        Some((path.strip_prefix(root).unwrap().to_path_buf(), text))
    };
    found.into_iter().filter_map(read).collect()
}

fn rust(folder: &str) -> Vec<(PathBuf, String)> {
    files(folder)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn files_are_short() {
    let sources = ["src", "kernels", "tests", "benches", "examples"].iter().flat_map(|f| files(f));
    for (path, text) in sources.filter(|(path, _)| {
        path.extension()
            .is_some_and(|e| ["rs", "c", "h", "cu", "hip"].iter().any(|known| e == *known))
    }) {
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines; split it by noun", path.display());
    }
}

/// `unsafe` has its rooms: backends, owned and lent memory, the floating-point mode, and one launch for each op. Each use
/// says why it is sound.
#[test]
fn unsafe_stays_in_its_rooms() {
    let rooms = [
        "src/backend",
        "src/buffer.rs",
        "src/environment.rs",
        "src/lend",
        "src/reduce/comm/mpi/shim.rs",
        "src/reduce/comm/nccl/library.rs",
        "src/reduce/comm/nccl/transfer.rs",
        "src/stream.rs",
    ];
    for (path, text) in rust("src") {
        let here = path.to_str().unwrap();
        // `kernel/launch.rs` says what a launch is, and makes none.
        let launch = path.file_name().is_some_and(|name| name == "launch.rs")
            && !here.starts_with("src/kernel");
        let room = launch || rooms.iter().any(|room| here.starts_with(room));
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let uses = code.filter(|line| {
            let line = line.split("//").next().unwrap();
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        });
        let count = uses.count();
        assert!(room || count == 0, "{here}: {count} unsafe outside its rooms");
        if launch {
            assert_eq!(count, 1, "{here}: one launch");
        }
    }
}

/// Words that say nothing, or that belong to one vendor.
#[test]
fn names_say_what_things_are() {
    let banned = ["utils", "helper", "manager", "impl2", "_v2"];
    for (path, text) in rust("src") {
        for (number, line) in text.lines().enumerate() {
            // Strings may hold names that are not ours: a driver's functions.
            let code: String = line.split("//").next().unwrap().split('"').step_by(2).collect();
            for word in banned {
                assert!(!code.contains(word), "{}:{}: {word}", path.display(), number + 1);
            }
        }
    }
    for (path, text) in files("kernels/common") {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let mut words = lower.split(|c: char| !c.is_alphanumeric() && c != '_');
            let vendor = ["cuda", "nvidia", "hip", "rocm", "amd", "warp"];
            let found = words.find(|word| vendor.contains(word));
            assert_eq!(found, None, "{}:{}", path.display(), number + 1);
        }
    }
}

/// A folder of `kernels` is a target: all have the same file names.
#[test]
fn targets_have_the_same_files() {
    let names = |target: &str| {
        let mut names: Vec<_> = files(&format!("kernels/{target}"))
            .into_iter()
            .map(|(path, _)| path.file_name().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("cuda"), names("hip"));
    assert!(!names("cuda").is_empty());
}

/// Nothing depends on the machine it was written on.
#[test]
fn no_path_of_one_machine() {
    let sources = ["src", "tests", "benches", "examples", "ci"].iter().flat_map(|f| files(f));
    for (path, text) in sources.filter(|(path, _)| !path.ends_with("source.rs")) {
        for folder in ["home", "root", "tmp"] {
            assert!(!text.contains(&format!("/{folder}/")), "{}: {folder}", path.display());
        }
    }
}

/// A suite that asks for the devices there are is one of those that are run on them.
#[test]
fn suites_of_devices_run_on_devices() {
    let lists = ["ci/device-suites.sh", "ci/run"].map(Path::new);
    let scripts = files("ci").into_iter().filter(|(path, _)| lists.contains(&path.as_path()));
    let scripts: String = scripts.map(|(_, text)| text).collect();
    if scripts.is_empty() {
        println!("skipped: no ci, as in the package");
        return;
    }
    let named: Vec<&str> = scripts.split([' ', '=', '(', ')', '\n']).collect();
    for (path, text) in rust("tests") {
        if path.components().count() == 2 && text.contains("devices()") {
            let suite = path.file_stem().unwrap().to_str().unwrap();
            assert!(named.contains(&suite), "{suite}: not in ci/device-suites.sh");
        }
    }
}
