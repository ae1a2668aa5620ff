//! The `exec` command: arguments, outputs, exit status.

use std::path::PathBuf;
use std::process::{Command, Output};

const SCALE: &str = ".version 8.0\n.target sm_80\n.address_size 64\n\
.visible .entry scale(.param .u64 x, .param .u64 y, .param .u32 n, .param .f32 by) {\n\
.reg .pred %p; .reg .b32 %r<4>; .reg .f32 %f<2>; .reg .b64 %d<4>;\n\
ld.param.u64 %d0, [x]; ld.param.u64 %d1, [y]; ld.param.u32 %r0, [n]; ld.param.f32 %f1, [by];\n\
mov.u32 %r1, %tid.x; setp.ge.u32 %p, %r1, %r0; @%p ret;\n\
mul.wide.u32 %d2, %r1, 4; add.s64 %d0, %d0, %d2; add.s64 %d1, %d1, %d2;\n\
ld.global.f32 %f0, [%d0]; mul.f32 %f0, %f0, %f1; st.global.f32 [%d1], %f0; ret; }\n";

fn exec(folder: &PathBuf, ptx: &str, n: u32, more: &[&str]) -> Output {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("k.ptx"), ptx).unwrap();
    let x: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(folder.join("x"), x).unwrap();
    let arg = |text: String| text.replace("DIR", &folder.display().to_string());
    Command::new(env!("CARGO_BIN_EXE_halfstep-vgpu"))
        .args(["exec", &arg("DIR/k.ptx".into()), "--kernel", "scale", "--block", "32"])
        .args(["--arg", &arg("in:DIR/x".into()), "--arg", &arg("out:32=DIR/y".into())])
        .args(["--arg", &format!("u32:{n}"), "--arg", "f32:-1.5"])
        .args(more)
        .output()
        .unwrap()
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vgpu-exec-{}-{name}", std::process::id()))
}

#[test]
fn a_kernel_runs_and_its_output_is_written() {
    let folder = folder("good");
    let output = exec(&folder, SCALE, 8, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let y = std::fs::read(folder.join("y")).unwrap();
    let y: Vec<f32> = y.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!(y, [-0.0, -1.5, -3.0, -4.5, -6.0, -7.5, -9.0, -10.5]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_finding_is_printed_and_is_exit_status_1() {
    let folder = folder("bounds");
    let output = exec(&folder, SCALE, 9, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &report["findings"][0];
    assert_eq!(
        (first["kind"].as_str(), first["thread"].as_u64()),
        (Some("ReadOutOfBounds"), Some(8))
    );
    assert_eq!(first["instruction"], "ld.global.f32 %f0, [%d0];");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_not_known_is_exit_status_1_and_wrong_arguments_2() {
    let folder = folder("unknown");
    let output = exec(&folder, &SCALE.replace("mul.f32", "frob.f32"), 8, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("frob.f32"));
    let output = exec(&folder, SCALE, 8, &["--arg", "u32:1"]);
    assert_eq!(output.status.code(), Some(2));
    let output = exec(&folder, SCALE, 8, &["--arg", "what:1"]);
    assert_eq!(output.status.code(), Some(2));
    std::fs::remove_dir_all(folder).unwrap();
}

mod common;

/// The same program takes code objects.
#[test]
fn a_code_object_runs_too() {
    let body = "s_load_dwordx4 s[4:7], s[0:1], 0x0\nv_lshlrev_b32_e32 v1, 2, v0\ns_waitcnt lgkmcnt(0)\n\
        global_load_dword v2, v1, s[4:5]\ns_waitcnt vmcnt(0)\nv_mul_f32_e32 v2, -4.0, v2\n\
        global_store_dword v1, v2, s[6:7]";
    let Some(object) = common::gfx::assemble(&common::gfx::kernel(body, 0)) else { return };
    let folder = folder("gfx");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("k.co"), object).unwrap();
    let x: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(folder.join("x"), x).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let run = |threads: &str| {
        Command::new(env!("CARGO_BIN_EXE_halfstep-vgpu"))
            .args(["exec", &path("k.co"), "--kernel", "k", "--block", threads, "--json"])
            .args(["--arg", &format!("in:{}", path("x"))])
            .args(["--arg", &format!("out:32={}", path("y"))])
            .output()
            .unwrap()
    };
    assert_eq!(run("8").status.code(), Some(0));
    let y = std::fs::read(folder.join("y")).unwrap();
    let y: Vec<f32> = y.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!(y, [-0.0, -4.0, -8.0, -12.0, -16.0, -20.0, -24.0, -28.0]);
    let output = run("9");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["findings"][0]["instruction"], "global_load_dword v2, v1, s[4:5]");
    std::fs::remove_dir_all(folder).unwrap();
}
