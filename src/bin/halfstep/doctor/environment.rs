//! Variables that change what happens, and that people forget they have set.

use std::path::Path;

use super::finding::Finding;
use super::libraries;

/// What the variables' meaning depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub cuda: bool,
    pub hip: bool,
}

impl Facts {
    /// Which vendors' GPUs this program or this machine has to do with.
    pub fn here() -> Self {
        Self {
            cuda: cfg!(feature = "cuda") || Path::new("/dev/nvidia0").exists(),
            hip: cfg!(feature = "hip") || Path::new("/dev/kfd").exists(),
        }
    }
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Pure: everything comes from `env` and `facts` (and whether folders exist).
pub fn look(env: Env, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    visible(env, facts, &mut found);
    slow(env, &mut found);
    network(env, facts, &mut found);
    loader(env, &mut found);
    threads(env, &mut found);
    if found.is_empty() {
        found.push(Finding::fine("nothing set that would stand in the way"));
    }
    found
}

fn set(env: Env, name: &str) -> bool {
    env(name).is_some_and(|value| {
        !["", "0", "false", "no", "off"].contains(&value.to_lowercase().as_str())
    })
}

/// Which devices a process sees.
fn visible(env: Env, facts: &Facts, found: &mut Vec<Finding>) {
    let names = [
        ("CUDA_VISIBLE_DEVICES", facts.cuda || facts.hip),
        ("HIP_VISIBLE_DEVICES", facts.hip),
        ("ROCR_VISIBLE_DEVICES", facts.hip),
    ];
    for (name, matters) in names {
        let Some(value) = env(name) else { continue };
        let hides = value.trim().is_empty()
            || value.split(',').next().is_some_and(|first| {
                let first = first.trim();
                first.starts_with('-') || first.eq_ignore_ascii_case("nodevfiles")
            });
        if hides && matters {
            let text = format!("{name} is \"{value}\", which hides every GPU");
            found.push(Finding::problem(
                text,
                format!("unset {name}, or name devices, as in {name}=0"),
            ));
        } else {
            found.push(Finding::note(format!(
                "{name}={value}: devices are numbered within this list"
            )));
        }
    }
    let layered: Vec<&str> =
        names.iter().map(|(name, _)| *name).filter(|name| env(name).is_some()).collect();
    if facts.hip && layered.len() > 1 {
        let text = format!(
            "{} are all set: HIP numbers within what ROCR leaves, and takes CUDA_VISIBLE_DEVICES too",
            layered.join(" and ")
        );
        let cure =
            "keep ROCR_VISIBLE_DEVICES alone (per rank: ROCR_VISIBLE_DEVICES=$SLURM_LOCALID)";
        found.push(Finding::problem(text, cure));
    }
    if let Some(value) = env("HSA_OVERRIDE_GFX_VERSION").filter(|_| facts.hip) {
        found.push(Finding::problem(
            format!("HSA_OVERRIDE_GFX_VERSION={value}: the runtime takes the GPU for another, and loads that one's code"),
            "unset HSA_OVERRIDE_GFX_VERSION",
        ));
    }
    if env("SLURM_GPUS_PER_TASK").is_some() && env("ROCR_VISIBLE_DEVICES").is_some() {
        found.push(Finding::note(
            "--gpus-per-task and ROCR_VISIBLE_DEVICES both choose devices; --gpus-per-task also keeps ranks \
             from reaching each other's memory. Use --gpus-per-node and ROCR_VISIBLE_DEVICES",
        ));
    }
}

/// What is meant for debugging, and makes every measurement wrong.
fn slow(env: Env, found: &mut Vec<Finding>) {
    for name in [
        "CUDA_LAUNCH_BLOCKING",
        "HIP_LAUNCH_BLOCKING",
        "AMD_SERIALIZE_KERNEL",
        "AMD_SERIALIZE_COPY",
        "NCCL_P2P_DISABLE",
        "NCCL_SHM_DISABLE",
        "NCCL_IB_DISABLE",
    ] {
        if set(env, name) {
            let text =
                format!("{name} is set: right for finding a fault, wrong for everything timed");
            found.push(Finding::problem(text, format!("unset {name}")));
        }
    }
    for name in
        ["NCCL_ALGO", "NCCL_PROTO", "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS", "NCCL_BUFFSIZE"]
    {
        if let Some(value) = env(name) {
            found.push(Finding::note(format!(
                "{name}={value}: the library's own choice is overruled"
            )));
        }
    }
    if env("NCCL_DEBUG").is_some_and(|level| level.eq_ignore_ascii_case("trace")) {
        found.push(Finding::note("NCCL_DEBUG=TRACE writes a line for each call"));
    }
}

/// Several nodes without the fast network is the classic way to lose a factor of ten.
fn network(env: Env, facts: &Facts, found: &mut Vec<Finding>) {
    let nodes = env("SLURM_NNODES").and_then(|nodes| nodes.parse::<usize>().ok()).unwrap_or(1);
    if nodes < 2 || !(facts.cuda || facts.hip) {
        return;
    }
    if env("NCCL_SOCKET_IFNAME").is_none() {
        found.push(Finding::problem(
            format!("NCCL_SOCKET_IFNAME is not set, with {nodes} nodes: the management network may be used"),
            "LUMI: NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3; JUWELS: NCCL_SOCKET_IFNAME=ib0",
        ));
    }
    if facts.hip && !libraries::is_there(env, "librccl-net.so") {
        found.push(Finding::problem(
            format!("librccl-net.so is not found, with {nodes} nodes: RCCL falls back to TCP on Slingshot"),
            "module load aws-ofi-rccl (or aws-ofi-nccl), or put it on LD_LIBRARY_PATH",
        ));
    }
    if env("CRAY_MPICH_DIR").is_some() && !set(env, "MPICH_GPU_SUPPORT_ENABLED") {
        found.push(Finding::note(
            "MPICH_GPU_SUPPORT_ENABLED is not 1: Cray MPICH takes no device memory",
        ));
    }
}

/// What the loader finds instead of what was meant.
fn loader(env: Env, found: &mut Vec<Finding>) {
    if let Some(value) = env("LD_PRELOAD").filter(|value| !value.trim().is_empty()) {
        found.push(Finding::note(format!("LD_PRELOAD={value}")));
    }
    let Some(value) = env("LD_LIBRARY_PATH") else { return };
    let folders: Vec<_> =
        std::env::split_paths(&value).filter(|f| !f.as_os_str().is_empty()).collect();
    for folder in &folders {
        let stub = folder.components().any(|part| part.as_os_str() == "stubs");
        if stub {
            found.push(Finding::problem(
                format!(
                    "LD_LIBRARY_PATH has {}: stubs link, and have no driver behind them",
                    folder.display()
                ),
                "take it out; it is for linking only",
            ));
        } else if !folder.is_dir() {
            found.push(Finding::note(format!(
                "LD_LIBRARY_PATH has {}, which is not there",
                folder.display()
            )));
        }
    }
}

/// Threads of the CPU backend do not come from OpenMP.
fn threads(env: Env, found: &mut Vec<Finding>) {
    for name in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
        if let Some(value) = env(name) {
            found.push(Finding::note(format!(
                "{name}={value} does not change the CPU backend's threads; `Device::cpu_with_threads` and --threads do"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const BOTH: Facts = Facts { cuda: true, hip: true };

    fn problems(facts: Facts, vars: &[(&str, &str)]) -> Vec<Finding> {
        let env = |name: &str| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        look(&env, &facts).into_iter().filter(|found| found.level == Level::Problem).collect()
    }

    /// Each trap is a problem with a cure that names the variable; its harmless value is none.
    #[test]
    fn traps() {
        for (name, bad, good) in [
            ("CUDA_VISIBLE_DEVICES", "", "0,1"),
            ("CUDA_VISIBLE_DEVICES", "-1", "3"),
            ("CUDA_VISIBLE_DEVICES", "NoDevFiles", "GPU-8f2c"),
            ("HIP_VISIBLE_DEVICES", "", "1"),
            ("ROCR_VISIBLE_DEVICES", "-1", "7"),
            ("CUDA_LAUNCH_BLOCKING", "1", "0"),
            ("AMD_SERIALIZE_KERNEL", "3", ""),
            ("NCCL_IB_DISABLE", "1", "0"),
            ("LD_LIBRARY_PATH", "/usr/local/cuda/lib64/stubs", "/usr"),
        ] {
            let found = problems(BOTH, &[(name, bad)]);
            assert_eq!(found.len(), 1, "{name}={bad}: {found:?}");
            let says = format!("{} {}", found[0].text, found[0].cure.as_deref().unwrap());
            assert!(says.contains(name), "{says}");
            assert_eq!(problems(BOTH, &[(name, good)]), [], "{name}={good}");
        }
    }

    #[test]
    fn layers_of_visibility_are_a_problem_on_amd_only() {
        let vars = [("ROCR_VISIBLE_DEVICES", "1"), ("HIP_VISIBLE_DEVICES", "1")];
        assert_eq!(problems(BOTH, &vars).len(), 1);
        assert_eq!(problems(Facts { cuda: true, hip: false }, &vars), []);
        assert_eq!(problems(BOTH, &[("HSA_OVERRIDE_GFX_VERSION", "9.0.0")]).len(), 1);
    }

    #[test]
    fn several_nodes_need_an_interface_and_on_amd_a_plugin() {
        let cuda = Facts { cuda: true, hip: false };
        assert_eq!(problems(cuda, &[("SLURM_NNODES", "1")]), []);
        assert_eq!(problems(cuda, &[("SLURM_NNODES", "4")]).len(), 1);
        assert_eq!(problems(cuda, &[("SLURM_NNODES", "4"), ("NCCL_SOCKET_IFNAME", "ib0")]), []);
        let amd = problems(BOTH, &[("SLURM_NNODES", "2"), ("NCCL_SOCKET_IFNAME", "hsn0")]);
        assert!(amd.len() == 1 && amd[0].text.contains("librccl-net.so"), "{amd:?}");
        assert_eq!(problems(Facts { cuda: false, hip: false }, &[("SLURM_NNODES", "4")]), []);
    }

    #[test]
    fn nothing_set_is_fine_and_threads_are_a_note() {
        let found = look(&|_| None, &BOTH);
        assert_eq!(found, [Finding::fine("nothing set that would stand in the way")]);
        let found = look(&|name| (name == "OMP_NUM_THREADS").then(|| "1".into()), &BOTH);
        assert!(found.len() == 1 && found[0].level == Level::Note);
    }
}
