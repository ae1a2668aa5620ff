//! The virtual GPU's side door (`ci/vgpu`): what its driver has seen. On hardware there is none.

use std::ffi::{CStr, CString, c_char, c_int};

use halfstep::{Device, DeviceKind};
use libloading::Library;

/// The side door of the driver that a device is on.
pub struct Door {
    library: Library,
    /// `cuda` or `hip`.
    pub vendor: &'static str,
}

/// A launch that was executed.
#[derive(Debug)]
pub struct Launched {
    pub kernel: String,
    /// Bytes that memory had to move: 32 for each different sector read, and for each written.
    pub moved: u64,
    /// Accesses to shared memory that had to wait for another of the same wave.
    pub bank_conflicts: u64,
    /// Copies to shared memory that go on in the background, and waits for them.
    pub copies: u64,
}

impl Door {
    /// `None`, with the reason printed, where the device is the CPU or real.
    pub fn of(device: &Device) -> Option<Self> {
        let (vendor, names): (_, &[&str]) = match device.info().kind {
            DeviceKind::Cuda => ("cuda", &["libcuda.so.1"]),
            DeviceKind::Hip => ("hip", &["libamdhip64.so"]),
            _ => return None,
        };
        let library = names.iter().find_map(|name| {
            // SAFETY: the driver is loaded already.
            unsafe { Library::new(*name) }.ok()
        })?;
        // SAFETY: only looked for.
        if unsafe { library.get::<extern "C" fn()>(b"vgpu_calls") }.is_err() {
            println!("skipped: {} is not virtual: it does not say what it saw", device.info());
            return None;
        }
        Some(Self { library, vendor })
    }

    /// A function of the driver's, or of the door's.
    pub fn function<T: Copy>(&self, name: &str) -> T {
        // SAFETY: callers name the driver's types, and those below are of `ci/vgpu/src/driver/door.rs`.
        *unsafe { self.library.get::<T>(name.as_bytes()) }.expect("it has it")
    }

    fn list(&self, text: *mut c_char) -> Vec<serde_json::Value> {
        // SAFETY: a C string that the door made, given back once.
        let json = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        let free: unsafe extern "C" fn(*mut c_char) = self.function("vgpu_free");
        // SAFETY: as above.
        unsafe { free(text) };
        serde_json::from_str(&json).expect("a JSON list")
    }

    /// How often a function was called.
    pub fn calls(&self, name: &str) -> u64 {
        let calls: unsafe extern "C" fn(*const c_char) -> u64 = self.function("vgpu_calls");
        let name = CString::new(name).unwrap();
        // SAFETY: a C string.
        unsafe { calls(name.as_ptr()) }
    }

    /// Lines of the trace since the last time; from now on they are kept, or not.
    pub fn trace(&self, keep: bool) -> Vec<String> {
        let take: extern "C" fn(c_int) -> *mut c_char = self.function("vgpu_take_trace");
        let lines = self.list(take(keep.into()));
        lines.iter().filter_map(|line| line.as_str().map(str::to_string)).collect()
    }

    /// Launches executed since the last time.
    pub fn launches(&self) -> Vec<Launched> {
        let take: extern "C" fn() -> *mut c_char = self.function("vgpu_take_launches");
        let one = |launch: &serde_json::Value| Launched {
            kernel: launch["kernel"].as_str().unwrap_or_default().to_string(),
            moved: ["sectors_read", "sectors_written"]
                .iter()
                .map(|name| 32 * launch[name].as_u64().expect("a number"))
                .sum(),
            bank_conflicts: launch["bank_conflicts"].as_u64().expect("a number"),
            copies: launch["instructions"]["Async"].as_u64().unwrap_or(0),
        };
        self.list(take()).iter().map(one).collect()
    }

    /// What was found wrong since the last time.
    pub fn findings(&self) -> Vec<String> {
        let take: extern "C" fn() -> *mut c_char = self.function("vgpu_take_findings");
        self.list(take()).iter().map(|f| f["text"].as_str().unwrap_or("?").to_string()).collect()
    }

    /// What was made and not ended: kinds, sorted.
    pub fn leaks(&self) -> Vec<String> {
        let take: extern "C" fn() -> *mut c_char = self.function("vgpu_leaks");
        let mut kinds: Vec<String> = self
            .list(take())
            .iter()
            .map(|leak| leak["kind"].as_str().unwrap_or("?").to_string())
            .collect();
        kinds.sort();
        kinds
    }

    /// Makes call number `number` of a function from now on, by this thread, give `code`.
    pub fn fail(&self, call: &str, number: u64, code: u32) {
        self.rule(&format!("{call}:{number}:{code}"), true);
    }

    /// The same, by whatever thread.
    pub fn fail_anywhere(&self, call: &str, number: u64, code: u32) {
        self.rule(&format!("{call}:{number}:{code}"), false);
    }

    fn rule(&self, rule: &str, this_thread: bool) {
        let fail: unsafe extern "C" fn(*const c_char, c_int) -> c_int = self.function("vgpu_fail");
        let rule = CString::new(rule).unwrap();
        // SAFETY: a C string.
        assert_eq!(unsafe { fail(rule.as_ptr(), this_thread.into()) }, 0);
    }

    /// Drops the rules that have not come true, and says how many they were.
    pub fn fail_end(&self) -> i32 {
        let end: extern "C" fn() -> c_int = self.function("vgpu_fail_end");
        end()
    }

    /// Draws orders of execution from another seed.
    pub fn seed(&self, seed: u64) {
        let set: extern "C" fn(u64) = self.function("vgpu_seed");
        set(seed);
    }
}
