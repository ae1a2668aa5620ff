//! What the suites of the drivers share: a test runs in a child process that has the virtual
//! drivers in place, and looks at its own side door.
#![allow(dead_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use libloading::{Library, Symbol};
use serde_json::Value;

/// Set in children: the test that they run.
const CHILD: &str = "VGPU_TEST_CHILD";

/// What a child says last.
const DONE: &str = "the child is done";

/// The command that runs others with the virtual drivers.
fn run() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("run"), here.join("../run")];
    places.into_iter().find(|place| place.is_file()).expect("ci/vgpu/run")
}

/// The libraries, built once for all tests of a process.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = r#"printf %s "${LD_LIBRARY_PATH%%:*}""#;
        let done = Command::new(run()).args(["sh", "-c", script]).output().expect("ci/vgpu/run");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        PathBuf::from(String::from_utf8(done.stdout).expect("a path"))
    })
}

/// Runs `body` in a child process with these settings, and gives what the child said. In the child
/// it does not return.
pub fn child(test: &str, settings: &[(&str, &str)], body: impl FnOnce()) -> Output {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        body();
        println!("{DONE}");
        std::process::exit(0);
    }
    Command::new(run())
        .arg(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .env("VGPU_BUILT", built())
        .envs(settings.iter().copied())
        .output()
        .expect("ci/vgpu/run")
}

/// The same, and the child must end well.
pub fn passes(test: &str, settings: &[(&str, &str)], body: impl FnOnce()) {
    let done = child(test, settings, body);
    assert!(done.status.success(), "{}", said(&done));
    // A test of another name runs nothing, and ends well too.
    assert!(said(&done).contains(DONE), "{}", said(&done));
}

/// All that a child said.
pub fn said(done: &Output) -> String {
    format!(
        "{}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    )
}

/// The side door of a library that is loaded already.
pub struct Door(Library);

impl Door {
    pub fn cuda() -> Self {
        Self::open("libcuda.so")
    }

    pub fn open(name: &str) -> Self {
        // SAFETY: the virtual driver, which the process has loaded before.
        Self(unsafe { Library::new(name) }.expect("the virtual driver"))
    }

    fn get<F>(&self, name: &str) -> Symbol<'_, F> {
        // SAFETY: the types below are those of `export_door!`.
        unsafe { self.0.get(name.as_bytes()) }.expect("a function of the side door")
    }

    fn list(&self, text: *mut c_char) -> Vec<Value> {
        // SAFETY: the side door gives a string, and takes it back once.
        unsafe {
            let value = serde_json::from_slice(CStr::from_ptr(text).to_bytes()).expect("JSON");
            self.get::<unsafe extern "C" fn(*mut c_char)>("vgpu_free")(text);
            value
        }
    }

    fn take(&self, name: &str) -> Vec<Value> {
        self.list(self.get::<extern "C" fn() -> *mut c_char>(name)())
    }

    pub fn findings(&self) -> Vec<Value> {
        self.take("vgpu_take_findings")
    }

    /// The kinds of what was found.
    pub fn kinds(&self) -> Vec<String> {
        self.findings().iter().map(|f| f["kind"].as_str().expect("a kind").to_string()).collect()
    }

    pub fn launches(&self) -> Vec<Value> {
        self.take("vgpu_take_launches")
    }

    pub fn leaks(&self) -> Vec<Value> {
        self.take("vgpu_leaks")
    }

    /// The kinds of what was made and not ended.
    pub fn leaked(&self) -> Vec<String> {
        self.leaks().iter().map(|l| l["kind"].as_str().expect("a kind").to_string()).collect()
    }

    pub fn trace(&self, keep: bool) -> Vec<String> {
        let take = self.get::<extern "C" fn(c_int) -> *mut c_char>("vgpu_take_trace");
        let lines = self.list(take(keep.into()));
        lines.iter().map(|line| line.as_str().expect("a line").to_string()).collect()
    }

    pub fn calls(&self, name: &str) -> u64 {
        let name = CString::new(name).expect("a name");
        self.get::<extern "C" fn(*const c_char) -> u64>("vgpu_calls")(name.as_ptr())
    }

    pub fn fail(&self, rule: &str, this_thread: bool) {
        let rule = CString::new(rule).expect("a rule");
        let fail = self.get::<extern "C" fn(*const c_char, c_int) -> c_int>("vgpu_fail");
        assert_eq!(fail(rule.as_ptr(), this_thread.into()), 0);
    }

    pub fn fail_end(&self) -> c_int {
        self.get::<extern "C" fn() -> c_int>("vgpu_fail_end")()
    }

    pub fn seed(&self, seed: u64) {
        self.get::<extern "C" fn(u64)>("vgpu_seed")(seed);
    }

    pub fn pending(&self) -> u64 {
        self.get::<extern "C" fn() -> u64>("vgpu_pending")()
    }
}

/// Small kernels. `scale`: y[i] = 2·x[i]. `add`: y[i] += x[i]. `set`: y[i] = v. `far`: y[i] = v for
/// one 64-bit index. Blocks of any size, one element a thread.
pub const PTX: &str = r#"
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 y, .param .u64 x, .param .u32 n)
{
    .reg .pred %p; .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .b64 %d<8>;
    ld.param.u64 %d1, [y]; ld.param.u64 %d2, [x]; ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4; setp.ge.u32 %p, %r5, %r1; @%p ret;
    mul.wide.u32 %d3, %r5, 4; add.s64 %d4, %d1, %d3; add.s64 %d5, %d2, %d3;
    ld.global.f32 %f1, [%d5]; add.f32 %f2, %f1, %f1; st.global.f32 [%d4], %f2;
    ret;
}
.visible .entry add(.param .u64 y, .param .u64 x, .param .u32 n)
{
    .reg .pred %p; .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .b64 %d<8>;
    ld.param.u64 %d1, [y]; ld.param.u64 %d2, [x]; ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4; setp.ge.u32 %p, %r5, %r1; @%p ret;
    mul.wide.u32 %d3, %r5, 4; add.s64 %d4, %d1, %d3; add.s64 %d5, %d2, %d3;
    ld.global.f32 %f1, [%d5]; ld.global.f32 %f2, [%d4]; add.f32 %f3, %f1, %f2;
    st.global.f32 [%d4], %f3;
    ret;
}
.visible .entry set(.param .u64 y, .param .f32 v, .param .u32 n)
{
    .reg .pred %p; .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .b64 %d<8>;
    ld.param.u64 %d1, [y]; ld.param.f32 %f1, [v]; ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4; setp.ge.u32 %p, %r5, %r1; @%p ret;
    mul.wide.u32 %d3, %r5, 4; add.s64 %d4, %d1, %d3; st.global.f32 [%d4], %f1;
    ret;
}
.visible .entry far(.param .u64 y, .param .f32 v, .param .u64 i)
{
    .reg .f32 %f<4>; .reg .b64 %d<8>; .reg .b32 %t; .reg .pred %p;
    mov.u32 %t, %tid.x; setp.ne.u32 %p, %t, 0; @%p ret;
    ld.param.u64 %d1, [y]; ld.param.f32 %f1, [v]; ld.param.u64 %d2, [i];
    shl.b64 %d3, %d2, 2; add.s64 %d4, %d1, %d3; st.global.f32 [%d4], %f1;
    ret;
}
.extern .shared .align 16 .b8 dynamic[];
.visible .entry shared(.param .u64 y)
{
    .reg .b32 %r<4>; .reg .b64 %d<4>;
    ld.param.u64 %d1, [y]; mov.u32 %r1, dynamic; mov.u32 %r2, 7;
    st.shared.u32 [%r1], %r2; ld.shared.u32 %r3, [%r1]; st.global.u32 [%d1], %r3;
    ret;
}
"#;
