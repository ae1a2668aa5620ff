//! Code of compilers that do not compile the crate: clang's PTX, and clang's gfx90a code at every level
//! of optimization (without it, all is in private memory and every access is flat).

mod common;

use std::path::Path;
use std::process::Command;

use common::{Device, Params, clean, noise, root};

/// What clang 19 makes of a source; none where it is not installed or lacks the target.
fn clang(flags: &[&str], level: &str, output: &Path) -> Option<Vec<u8>> {
    let source = root().join("ci/vgpu/tests/kernels/rows.cpp");
    let mut command = Command::new("clang++-19");
    command.args(flags).args([level, "-ffp-contract=off", "-o"]).args([output, &source]);
    let Ok(done) = command.output() else {
        println!("skipped: no clang++-19 in PATH (ci/setup-compilers installs it)");
        return None;
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let bytes = std::fs::read(output).expect("the compiler wrote it");
    let _ = std::fs::remove_file(output);
    Some(bytes)
}

fn rows_are_their_definition(device: &mut Device) {
    for columns in [1_usize, 100, 391] {
        let mut noise = noise(columns as u64);
        let x: Vec<f32> = (0..3 * columns).map(|_| 10.0 * noise()).collect();
        let (px, py) = (device.upload(&x, "x"), device.memory.allocate(4 * x.len() as u64, "y"));
        let params = Params::default().ptr(px).ptr(py).u32(columns as u32);
        clean(&device.run("rows", 3, 128, params));
        let y = device.download(py, x.len(), f32::from_le_bytes);
        for (x, y) in x.chunks(columns).zip(y.chunks(columns)) {
            let best = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = x.iter().map(|x| f64::from(x - best).powi(2)).sum();
            for (x, y) in x.iter().zip(y) {
                let wanted = f64::from(x - best) / sum;
                // One column: 0 / 0.
                let near = (f64::from(*y) - wanted).abs() <= 1e-5 * wanted.abs();
                assert!(near || sum == 0.0 && y.is_nan(), "{columns}: {y}, not {wanted}");
            }
        }
    }
}

const LEVELS: [&str; 4] = ["-O0", "-O1", "-O2", "-Os"];

fn temporary(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("vgpu-{}-{name}", std::process::id()))
}

#[test]
fn ptx_of_clang() {
    const FLAGS: [&str; 7] = [
        "-x",
        "cuda",
        "--cuda-gpu-arch=sm_80",
        "--cuda-device-only",
        "-S",
        "-nocudainc",
        "-nocudalib",
    ];
    for level in LEVELS {
        let Some(text) = clang(&FLAGS, level, &temporary("rows.ptx")) else { return };
        println!("{level}");
        rows_are_their_definition(&mut Device::new(&String::from_utf8(text).expect("text")));
    }
}

#[test]
fn gfx90a_of_clang() {
    const FLAGS: [&str; 7] = [
        "-x",
        "hip",
        "--offload-arch=gfx90a",
        "--offload-device-only",
        "--no-gpu-bundle-output",
        "-nogpuinc",
        "-nogpulib",
    ];
    for level in LEVELS {
        let Some(object) = clang(&FLAGS, level, &temporary("rows.co")) else { return };
        println!("{level}");
        rows_are_their_definition(&mut Device::gfx(&object));
    }
}
