//! Collective libraries and network plugins: whether a loader would find them.

use std::path::{Path, PathBuf};

use super::finding::Finding;

/// A library, and what it is good for.
const WANTED: [(&str, &str); 4] = [
    ("libnccl.so.2", "NCCL, collectives between NVIDIA's GPUs"),
    ("librccl.so.1", "RCCL, collectives between AMD's GPUs"),
    ("libnccl-net.so", "a network plugin of NCCL"),
    ("librccl-net.so", "the network plugin of RCCL on Slingshot (aws-ofi-nccl)"),
];

pub fn look(env: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let folders = folders(env);
    WANTED
        .iter()
        .map(|(name, what)| match find(&folders, name) {
            Some(path) => Finding::fine(format!("{name}: {} ({what})", path.display())),
            None => Finding::note(format!("{name} is not found ({what})")),
        })
        .collect()
}

/// Where a loader looks, and where the toolkits put things.
fn folders(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths).collect();
    for root in ["CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "NCCL_HOME", "EBROOTNCCL"] {
        if let Some(root) = env(root).filter(|root| !root.is_empty()) {
            folders.extend(["lib", "lib64"].map(|lib| Path::new(&root).join(lib)));
        }
    }
    let usual = [
        "/usr/lib",
        "/usr/lib64",
        "/lib",
        "/lib64",
        "/usr/local/lib",
        "/usr/local/cuda/lib64",
        "/opt/rocm/lib",
    ];
    folders.extend(usual.map(PathBuf::from));
    folders.push(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH).into());
    folders
}

/// The first; a link is followed, because its end has the whole version in its name.
pub fn find(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())?;
    Some(std::fs::canonicalize(&path).unwrap_or(path))
}

/// Whether a loader would find it.
pub fn is_there(env: &dyn Fn(&str) -> Option<String>, name: &str) -> bool {
    find(&folders(env), name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_link() {
        let folder = std::env::temp_dir().join(format!("halfstep-lib-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libnccl.so.2.21.5"), "").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("libnccl.so.2.21.5", folder.join("libnccl.so.2")).unwrap();
        let path = folder.to_str().unwrap().to_string();
        let env = |name: &str| (name == "LD_LIBRARY_PATH").then(|| path.clone());
        assert!(is_there(&env, "libnccl.so.2"));
        assert!(look(&env)[0].text.contains("libnccl.so.2.21.5"));
        assert!(!is_there(&env, "librccl.so.999"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
