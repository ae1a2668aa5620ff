//! Collective libraries and network plugins: whether a loader would find them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::finding::Finding;
use super::gpus;
use super::programs::output;

/// A library, and what it is good for.
struct Library {
    /// Its files' names, as programs look for them, in order.
    names: &'static [&'static str],
    what: &'static str,
    /// Whether this program was built to use it, and there are GPUs that it would join: one alone needs none, until other
    /// nodes have some.
    needed: bool,
    /// The first version that will do, as the file's name has it, and in words.
    oldest: (&'static [u32], &'static str),
}

fn libraries() -> [Library; 4] {
    [
        Library {
            names: &["libnccl.so.2", "libnccl.so"],
            what: "NCCL, collectives between NVIDIA's GPUs",
            needed: cfg!(feature = "nccl") && gpus::cuda_count() > 1,
            oldest: (&[2, 14], "2.14"),
        },
        Library {
            names: &["librccl.so.1", "librccl.so"],
            what: "RCCL, collectives between AMD's GPUs",
            needed: cfg!(feature = "rccl") && gpus::hip_count() > 1,
            // Files are numbered as ROCm is.
            oldest: (&[1, 0, 50500], "that of ROCm 5.5"),
        },
        Library { names: &["libnccl-net.so"], what: "a network plugin of NCCL", ..PLUGIN },
        Library {
            names: &["librccl-net.so"],
            what: "the network plugin of RCCL on Slingshot (aws-ofi-nccl)",
            ..PLUGIN
        },
    ]
}
const PLUGIN: Library = Library { names: &[], what: "", needed: false, oldest: (&[], "") };

pub fn look(env: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let finding = |library: &Library| {
        let mut names = library.names.iter();
        if let Some(path) = names.clone().find_map(|name| place(env, name)) {
            return library.finding(Some(path));
        }
        match names.find_map(|name| find(&toolkits(env), name)) {
            Some(path) => library.hidden(&path),
            None => library.finding(None),
        }
    };
    libraries().iter().map(finding).collect()
}

/// What the loader has a list of; asked once, where a library is in none of the folders.
fn loaders_list() -> Option<&'static str> {
    static LIST: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let places = ["/sbin/ldconfig", "/usr/sbin/ldconfig"].map(Path::new);
        output(places.into_iter().find(|path| path.is_file())?, &["-p"])
    };
    LIST.get_or_init(ask).as_deref()
}

impl Library {
    fn finding(&self, place: Option<PathBuf>) -> Finding {
        let Self { names, what, needed, oldest: (oldest, in_words) } = self;
        let name = names.first().copied().unwrap_or_default();
        let cure =
            || format!("install it, {in_words} or newer, or put its folder on LD_LIBRARY_PATH");
        match place {
            None if *needed => Finding::problem(
                format!("{name} is not found ({what}), which its ranks on these GPUs need"),
                cure(),
            ),
            None => Finding::note(format!("{name} is not found ({what})")),
            Some(path) => {
                let text = format!("{name}: {} ({what})", path.display());
                let version = version(&path);
                let told = version.len() >= oldest.len();
                match told && version.as_slice() < *oldest {
                    true if *needed => Finding::problem(format!("{text} is too old"), cure()),
                    true => Finding::note(format!("{text} is older than this crate can use")),
                    false => Finding::fine(text),
                }
            }
        }
    }

    /// It is on this machine, where no loader looks.
    fn hidden(&self, path: &Path) -> Finding {
        let text = format!("{} ({}) is where no loader looks", path.display(), self.what);
        let folder = path.parent().unwrap_or(path);
        let cure = format!("put {} on LD_LIBRARY_PATH", folder.display());
        if self.needed { Finding::problem(text, cure) } else { Finding::note(text).with_cure(cure) }
    }
}

/// The numbers behind `.so.` in a file's name.
fn version(path: &Path) -> Vec<u32> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.split_once(".so.").map_or("", |(_, numbers)| numbers);
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

/// The folders in which `ldconfig -p` says that a library is: `name (libc6,x86-64) => path`.
fn cached(text: &str, name: &str) -> Vec<PathBuf> {
    let entries = text.lines().filter_map(|line| line.split_once(" => "));
    let of_name = entries.filter(|(of, _)| of.split_whitespace().next() == Some(name));
    of_name.filter_map(|(_, path)| Path::new(path).parent()).map(Path::to_path_buf).collect()
}

/// Where toolkits put things, and a loader looks only if it is told to.
fn toolkits(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let roots = ["CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "NCCL_HOME", "EBROOTNCCL"];
    let named = roots.iter().filter_map(|root| env(root)).filter(|root| !root.is_empty());
    let usual = ["/usr/local", "/usr/local/cuda", "/opt/rocm"].map(String::from);
    let roots = named.chain(usual).map(PathBuf::from);
    roots.flat_map(|root| ["lib", "lib64"].map(|lib| root.join(lib))).collect()
}

/// Where a loader finds it: in a folder that it is told of, in its list, or where it looks without.
fn place(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<PathBuf> {
    let told: Vec<PathBuf> =
        env("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths).collect();
    let mut usual = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"].map(PathBuf::from).to_vec();
    usual.push(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH).into());
    find(&told, name)
        .or_else(|| find(&cached(loaders_list()?, name), name))
        .or_else(|| find(&usual, name))
}

/// The first; a link is followed, because its end has the whole version in its name.
fn find(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())?;
    Some(std::fs::canonicalize(&path).unwrap_or(path))
}

/// Whether a loader would find it.
pub fn is_there(env: &dyn Fn(&str) -> Option<String>, name: &str) -> bool {
    place(env, name).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
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

        // In a toolkit's folder nobody finds it, as the reducer would say.
        std::fs::create_dir_all(folder.join("lib")).unwrap();
        std::fs::copy(folder.join("libnccl.so.2"), folder.join("lib/libnccl-net.so")).unwrap();
        let env = |name: &str| (name == "NCCL_HOME").then(|| path.clone());
        assert!(!is_there(&env, "libnccl-net.so"));
        let found = &look(&env)[2];
        assert!(
            found.level == Level::Note && found.text.contains("where no loader looks"),
            "{found}"
        );
        assert!(found.cure.as_deref().unwrap().contains(&format!("put {path}/lib on")), "{found}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A library that is needed has to be there, and new enough.
    #[test]
    fn what_is_needed_is_a_problem_where_it_is_not_there() {
        let level = |of: usize, needed, place: Option<&str>| {
            let library = Library { needed, ..libraries()[of] };
            let found = library.finding(place.map(PathBuf::from));
            assert_eq!(found.level == Level::Problem, found.cure.is_some(), "{found}");
            found.level
        };
        for (of, old, new) in [
            (0, "/lib/libnccl.so.2.13.4", "/lib/libnccl.so.2.14.3"),
            (1, "/opt/librccl.so.1.0.50403", "/opt/librccl.so.1.0.60000"),
        ] {
            assert_eq!(level(of, true, None), Level::Problem);
            assert_eq!(level(of, false, None), Level::Note);
            assert_eq!(level(of, true, Some(old)), Level::Problem);
            assert_eq!(level(of, false, Some(old)), Level::Note);
            assert_eq!(level(of, true, Some(new)), Level::Fine);
            // A file whose name does not tell is taken for what it should be.
            assert_eq!(level(of, true, Some("/lib/libxccl.so.2")), Level::Fine);
        }
    }

    #[test]
    fn the_loaders_list_names_folders() {
        let text = "2 libs found in cache `/etc/ld.so.cache'\n\
                    \tlibnccl.so.2 (libc6,x86-64) => /opt/nccl/lib/libnccl.so.2\n\
                    \tlibnccl.so (libc6,x86-64) => /usr/lib/libnccl.so\n";
        assert_eq!(cached(text, "libnccl.so.2"), [Path::new("/opt/nccl/lib")]);
        assert_eq!(cached(text, "librccl.so.1"), [] as [PathBuf; 0]);
    }
}
