//! The `halfstep` program, run as a user runs it.
#![allow(missing_docs)]

mod scale;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn halfstep(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halfstep")).args(args).output().unwrap()
}

fn golden(op: &str) -> String {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{op}.safetensors")]
            .iter()
            .collect();
    path.to_str().unwrap().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn verify_passes_the_golden_files() {
    let files =
        ["gemm", "linear_backward", "optimizer", "clip_grad_norm", "loss_scaler"].map(golden);
    let mut args = vec!["verify"];
    args.extend(files.iter().map(String::as_str));
    let output = halfstep(&args);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.ends_with("135 passed, 0 failed\n"), "{out}");
    assert_eq!(out.lines().count(), 137, "the device, a line a case, the summary");
    let output = halfstep(&["verify", "--device", "cpu:reference", "--threads", "1", &files[0]]);
    let out = text(&output.stdout);
    assert!(out.starts_with("device: cpu (1 threads, reference)\n"), "{out}");
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
}

/// Without files: what is built in, for every form of the CPU's products.
#[test]
fn verify_sweeps_without_files() {
    let run = |more: &[&str]| {
        let output = halfstep(&[&["verify"], more].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, error) = run(&[]);
    assert_eq!(code, Some(0), "{out}{error}");
    for group in
        ["golden gemm: 64 cases, error", "gemm f16 to f32: 280 cases, same bits", "optim lion"]
    {
        assert!(out.contains(&format!("ok     {group}")), "{group}: {out}");
    }
    assert!(out.ends_with("2019 passed, 0 failed\n"), "{out}");
    let case = ["--filter", "gemm f32 to f32 TN 33x65x31 plain"];
    let (code, out, _) = run(&[&["--device", "cpu:portable"], &case[..]].concat());
    assert!(code == Some(0) && out.ends_with("\n1 passed, 0 failed\n"), "{out}");
    let (code, _, error) = run(&["--filter", "no such case"]);
    assert!(code == Some(1) && error.contains("no case contains \"no such case\""), "{error}");
}

/// A wrong answer, a damaged file and a missing one: each is told, none panics, all exit with 1.
#[test]
fn verify_fails_in_words() {
    let folder = std::env::temp_dir().join(format!("halfstep-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let good = std::fs::read(golden("loss_scaler")).unwrap();
    let path = folder.join("wrong.safetensors");
    let mut wrong = good.clone();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    let output = halfstep(&["verify", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    assert!(
        out.contains("FAILED loss_scaler/scaler1") && out.ends_with("1 passed, 1 failed\n"),
        "{out}"
    );

    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    for file in [path.to_str().unwrap(), "no/such/file"] {
        let output = halfstep(&["verify", file, &golden("loss_scaler")]);
        assert_eq!(output.status.code(), Some(1));
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(error.contains(file) && !error.contains("panicked"), "{error}");
        assert!(out.contains("2 passed, 0 failed"), "the other file is still checked: {out}");
    }
    let output = halfstep(&["verify", "--filter", "no such case", &golden("loss_scaler")]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "nothing was checked: {}", text(&output.stdout));
    assert!(error.contains("no case contains \"no such case\""), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// What never ends is refused; a pipe, and a byte order mark before JSON, are read.
#[cfg(unix)]
#[test]
fn files_end() {
    for args in [&["verify"][..], &["plan", "buckets", "--list"], &["bench", "--compare"]] {
        let output = halfstep(&[args, &["/dev/zero"]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let line =
            format!("halfstep {}: /dev/zero: more than 64 MiB, and not a regular file\n", args[0]);
        assert_eq!(error, line);
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_halfstep"))
        .args(["plan", "buckets", "--list", "/dev/stdin", "--machine", "lumi", "--ranks", "16"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let list = "\u{feff}[{\"name\": \"w\", \"len\": 10}]\r\n";
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("1 tensors, 10 elements"), "{output:?}");
    assert!(!text(&output.stdout).contains("inf GB/s"), "so little has a rate, too: {output:?}");
}

#[test]
fn help_and_bad_arguments() {
    let output = halfstep(&["--help"]);
    assert!(output.status.success() && text(&output.stdout).contains("verify"));
    assert_eq!(halfstep(&["no-such-command"]).status.code(), Some(2));
}

/// Nobody reads on: the program stops, and says nothing.
#[test]
fn a_closed_pipe_is_quiet() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_halfstep"))
        .args(["scale", "--model", "resnet50", "--machine", "lumi", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.code().is_some(), "no signal, no panic");
    assert_ne!(output.status.code(), Some(101));
}

/// Nobody reads what goes wrong either: the exit status still tells it.
#[test]
fn a_closed_standard_error_is_no_panic() {
    for args in
        [&["plan", "gemm", "--m=1", "--n=1", "--k=1", "--device=tpu"][..], &["verify", "no"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfstep"));
        let output = command.args(args).stderr(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn plan_explains_products() {
    let product = ["plan", "gemm", "--m", "2048", "--n", "3072", "--k", "768"];
    let run = |more: &[&str]| halfstep(&[&product[..], more].concat());
    let out = text(&run(&["--layout", "NT", "--threads", "2"]).stdout);
    assert!(out.starts_with("bf16 NT: 2048×3072×768 on cpu (2 threads"), "{out}");
    assert!(!out.contains("hs_") && out.contains("reference's bits\n"), "{out}");
    let out = text(&run(&["--device", "cpu:portable", "--tile", "256x128"]).stdout);
    assert!(out.contains("; tiles of 4×16 sums in registers, by portable"), "{out}");
    assert!(out.contains("what is pinned is for GPUs"), "{out}");
    assert!(out.contains("9.664 GFLOP; at least 20.447 MB"), "{out}");
    // The gradient of the weights is a TN product with an f32 result of n·k.
    let out = text(&run(&["--product", "weight-grad"]).stdout);
    assert!(out.contains("bf16 TN") && out.contains("3072×768×2048"), "{out}");
    assert!(out.contains("at least 25.166 MB"), "{out}");
    // What a product takes is passed on, what it does not take is refused.
    for product in ["forward", "data-grad", "weight-grad"] {
        let output = run(&["--product", product, "--tile", "64x64", "--split", "2"]);
        assert!(output.status.success(), "{product}: {}", text(&output.stderr));
    }
    for output in ["f32", "bf16"] {
        assert!(run(&["--product", "weight-grad", "--output", output]).status.success());
    }
    for (more, code, word) in [
        (&["--output", "f16"][..], 1, "bf16 in, f16 out"),
        (&["--device", "tpu"], 1, "--device tpu: expected cpu"),
        (&["--device", "cpu:abacus"], 1, "arch abacus; here: "),
        (&["--layout", "nn2"], 2, "possible values"),
        (&["--product", "data-grad", "--layout", "nn"], 1, "--layout is of the forward product"),
        (&["--product", "weight-grad", "--batch", "4"], 1, "--batch is of the forward product"),
        (&["--product", "weight-grad", "--output", "f16"], 1, "bf16 in, f16 out"),
        (&["--split", "65"], 2, "1..=64"),
        (&["--batch", "-1"], 2, "'-1' for '--batch"),
    ] {
        let output = run(more);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {error}");
        assert!(error.contains(word) && (code == 2 || error.lines().count() == 1), "{error}");
    }
}

/// A list from a file: two layers, the second exchanged first while the first's gradients are computed.
#[test]
fn plan_draws_a_lists_timeline() {
    let folder = std::env::temp_dir().join(format!("halfstep-plan-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("list.json");
    let file = path.to_str().unwrap();
    std::fs::write(&path, r#"[{"name": "w1", "len": 1000000}, {"name": "w2", "len": 1000000}]"#)
        .unwrap();
    // 2 MB at 1 GB/s are 2 ms, and 1 ms before: ready at 5 and 10 ms, done at 8 and 13.
    let line =
        ["plan", "buckets", "--list", file, "--backward", "10", "--alpha", "1000", "--rate", "1"];
    let out = text(&halfstep(&line).stdout);
    assert!(out.contains("2 tensors, 2000000 elements, bf16"), "{out}");
    assert!(out.contains("5.000     5.000     8.000  w2 … w2"), "{out}");
    assert!(out.contains("10.000    10.000    13.000  w1 … w1"), "{out}");
    assert!(out.contains("all in one            1 buckets     5.000 ms"), "{out}");
    let json = text(&halfstep(&[&line[..], &["--json"]].concat()).stdout);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["buckets"].as_array().unwrap().len(), 2);
    assert_eq!(value["buckets"][0]["params"], serde_json::json!(["w2"]));

    std::fs::write(&path, r#"[{"name": "w\u001b[2J\n", "len": 10}]"#).unwrap();
    let out = text(&halfstep(&line).stdout);
    assert!(out.contains("  w\u{fffd}[2J\u{fffd} … w"), "{out:?}");
    for (content, word) in [
        ("{}", "expected a list"),
        ("[]", "at least one"),
        ("[{\"name\": \"a\"}]", "entry 0"),
        ("[{\"name\": \"a\", \"len\": -1}]", "entry 0"),
        ("[{\"name\": \"a\", \"len\": 18446744073709551615}]", "at most"),
        ("nonsense", "expected"),
    ] {
        std::fs::write(&path, content).unwrap();
        let output = halfstep(&line);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{content}");
        assert!(error.contains(word) && error.lines().count() == 1, "{content}: {error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(halfstep(&["plan", "buckets"]).status.code(), Some(2));
    let absent = halfstep(&["plan", "buckets", "--list", "no/such/file"]);
    assert!(text(&absent.stderr).starts_with("halfstep plan: no/such/file: "));
    let negative = halfstep(&["plan", "buckets", "--model", "resnet50", "--alpha", "-1"]);
    assert!(text(&negative.stderr).contains("link.alpha: expected a finite number of at least 0"));
    let both = ["plan", "buckets", "--model", "resnet50", "--machine", "lumi", "--ranks", "8"];
    assert!(text(&halfstep(&both).stdout).contains("resnet50: 161 tensors"));
    let alone = text(&halfstep(&[&both[..6], &["--ranks", "1"]].concat()).stdout);
    assert!(alone.contains("\none rank exchanges nothing; the backward pass 50.00 ms"), "{alone}");
}

/// What is found is told as data too, the exit status says whether there is a problem, and a trap in the
/// environment is one, with its cure.
#[test]
fn doctor_finds_traps() {
    let doctor = |vars: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfstep"));
        command.args(["doctor", "--json"]).env_clear();
        let kept = std::env::vars().filter(|(name, _)| {
            ["PATH", "LD_LIBRARY_PATH"].contains(&name.as_str()) || name.starts_with("VGPU_")
        });
        let output = command.envs(kept).envs(vars.iter().copied()).output().unwrap();
        let error = text(&output.stderr);
        assert!(
            error.lines().all(|line| line.starts_with("vgpu: ")),
            "the virtual driver's alone: {error}"
        );
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems = value["problems"].as_u64().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(problems > 0)), "{value}");
        (problems, value)
    };
    let (before, value) = doctor(&[]);
    for section in
        ["processor", "speed", "toolkits", "cuda", "hip", "libraries", "mpi", "environment"]
    {
        assert!(!value["sections"][section].as_array().unwrap().is_empty(), "{section}");
    }
    let gpus = cfg!(feature = "cuda") || cfg!(feature = "hip");
    let traces = ["/dev/nvidia0", "/dev/kfd"].map(|path| std::path::Path::new(path).exists());
    if !gpus && traces == [false; 2] {
        assert_eq!(before, 0, "a machine without a GPU is no problem: {value}");
    }
    let (after, value) = doctor(&[("CUDA_LAUNCH_BLOCKING", "1")]);
    assert_eq!(after, before + 1);
    let found = value["sections"]["environment"].to_string();
    assert!(found.contains("unset CUDA_LAUNCH_BLOCKING"), "{found}");
    let mpi = value["sections"]["mpi"].to_string();
    assert!(!mpi.contains("mpicc: gcc"), "the MPI's version, not its compiler's: {mpi}");
    let plain = halfstep(&["doctor"]);
    assert!(text(&plain.stdout).contains("environment\n"));
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        let folders = std::ffi::OsStr::from_bytes(b"/w\xff:/no/stubs");
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfstep"));
        let output = command.arg("doctor").env("LD_LIBRARY_PATH", folders).output().unwrap();
        assert!(text(&output.stdout).contains("LD_LIBRARY_PATH has /no/stubs: "), "{output:?}");
    }
}

/// Lines as data, pictures, a record, and a comparison with itself.
#[test]
fn bench_measures_draws_keeps_and_compares() {
    let folder = std::env::temp_dir().join(format!("halfstep-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let base = ["bench", "--device", "cpu", "--rounds", "1", "--len", "10000"];
    let run = |more: &[&str]| halfstep(&[&base[..], more].concat());
    let output =
        run(&["convert", "convert", "--json", "--svg", &path("svg"), "--record", &path("record")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "no progress bar without a terminal");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let devices = value["devices"].as_array().unwrap().len();
    let lines = value["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 4 * devices);
    for line in lines {
        assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["share"].as_f64().unwrap() > 0.0);
        assert_eq!(line["bytes"], 60_000.0);
    }
    let drawn = std::fs::read_to_string(folder.join("svg").join("roofline-cpu1.svg")).unwrap();
    assert!(drawn.contains("GFLOP/s") && drawn.contains("convert"));
    let machine = std::fs::read_dir(folder.join("record")).unwrap().next().unwrap().unwrap().path();
    let mut kept: Vec<_> = std::fs::read_dir(machine).unwrap().map(|e| e.unwrap().path()).collect();
    kept.sort();
    let [csv, txt] = [0, 1].map(|at: usize| std::fs::read_to_string(&kept[at]).unwrap());
    assert_eq!(csv.lines().count(), 1 + 4 * devices);
    assert!(csv.lines().all(|line| [10, 11].contains(&line.split(',').count())), "{csv}"); // names have commas
    for key in ["date", "commit", "compiler", "kernels", "processor", "clocks", "flags"] {
        assert!(txt.lines().any(|line| line.starts_with(key)), "{key}: {txt}");
    }
    assert!(txt.contains("compiler   rustc 1."), "{txt}");

    let json = format!("--json={}", path("before.json"));
    let output = run(&["convert", &json]);
    let out = text(&output.stdout);
    assert!(out.contains("share of the roof, geometric mean") && out.contains("lowest"), "{out}");
    assert!(out.contains("arrays of 10000 elements may stay in caches"), "{out}");
    let output = run(&["convert", "--compare", &path("before.json")]);
    let out = text(&output.stdout);
    assert!(!out.contains("another device"), "{out}");
    assert!(out.contains(&format!("geometric mean of {}", 4 * devices)), "{out}");
    assert!(out.contains("\nbefore: commit ") && !out.contains("not measured now"), "{out}");
    std::fs::write(folder.join("other.json"), "{\"format\": \"another\"}").unwrap();
    let no_folder = format!("--record={}", path("other.json/record"));
    for (more, word) in [
        (["--filter", "no such case"], "contains \"no such case\""),
        (["--compare", &path("other.json")], "expected format"),
        (["--compare", "no/such/file"], "no/such/file: "),
        (["--json", "--compare=no/such/file"], "--json=FILE"),
        (["convert", &no_folder], "other.json"),
        (["convert", "--json=no/such/file"], "no/such/file: "),
    ] {
        let output = run(&more);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert_eq!(text(&output.stdout), "", "before anything is measured: {more:?}");
        assert!(error.contains(word) && error.lines().count() == 1, "{error}");
    }
    // The CPU with another form of its products.
    let output =
        halfstep(&[&base[..1], &["convert", "--device", "cpu:portable"], &base[3..]].concat());
    let out = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(out.contains("cpu (1 threads, portable)"), "{out}");
    let output = halfstep(&["bench", "--device", "abacus"]);
    assert!(text(&output.stderr).contains("--device abacus: expected cpu"));
    assert_eq!(run(&["no-such-op"]).status.code(), Some(2));
    std::fs::remove_dir_all(folder).unwrap();
}

/// The library's own test has the bits; here it is what a user types.
#[test]
fn outer_merges_workers_and_says_so() {
    let folder = std::env::temp_dir().join(format!("halfstep-outer-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, value: f32| {
        let bytes: Vec<u8> = [value; 2].iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![2];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes);
        let path = folder.join(name);
        safetensors::serialize_to_file([("w", view.unwrap())], None, &path).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (master, a) = (write("m", 8.0), write("a", 0.0));
    let (b, broken) = (write("b", 4.0), write("c", f32::NAN));
    let [to, momentum, start] = ["to", "v", "s"].map(|n| folder.join(n).display().to_string());
    let mut args = vec!["outer", "--master", &master, "--to", &to, "--to-momentum", &momentum];
    args.extend(["--to-start", &start, "--lr", "0.5", "--mu", "0.5"]);
    let workers = [format!("{a}=3"), b, format!("{broken}=7")];
    args.extend(workers.iter().map(String::as_str));
    let refused = halfstep(&args);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.starts_with("halfstep outer: ") && said.contains("w[0]"), "{said}");
    args.push("--leave-out");
    let output = halfstep(&args);
    let expected = format!("left out: {broken}\nstep 1: 1 tensors, 2 elements, 2 workers\n");
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    // Δ = (3·8 + 1·4) / 4 = 7; θ − lr·(Δ + μ·Δ) = 8 − 5.25.
    let bytes = std::fs::read(&to).unwrap();
    assert_eq!(bytes[bytes.len() - 4..], 2.75f32.to_le_bytes());
    // What is no number is of the name.
    args.push("x=heavy");
    assert!(text(&halfstep(&args).stderr).contains("x=heavy"));
    // So is all of a name that is there.
    let [run, named] = ["run=3", "w=0.5"].map(|name| write(name, 4.0));
    for worker in [run.clone(), format!("{run}=2"), named] {
        let output = halfstep(&[&args[..args.len() - 1], &[&worker]].concat());
        let said = text(&output.stdout);
        assert!(said.ends_with("3 workers\n"), "{worker}: {said}{}", text(&output.stderr));
    }
    // And what is not UTF-8.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = folder.join(std::ffi::OsStr::from_bytes(b"w\xff"));
        std::fs::copy(&run, &name).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfstep"));
        let output = command.args(&args[..args.len() - 1]).arg(&name).output().unwrap();
        let said = text(&output.stdout);
        assert!(said.ends_with("3 workers\n"), "{said}{}", text(&output.stderr));
    }
    std::fs::remove_dir_all(folder).unwrap();
}
