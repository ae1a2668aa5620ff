//! Modules and functions.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::wait;

use crate::call::{driver, export, lock, put, put_if, text};

/// Loads a code object, or a bundle of them.
fn load(module: *mut u64, image: &[u8]) -> Result {
    let mut d = lock();
    d.forbid_unsafe()?;
    let loaded = d.load(image).map_err(|(error, what)| {
        eprintln!("vgpu: module: {what}");
        error
    })?;
    put(module, loaded)
}

/// Images that modules were loaded from, by module: where they are, and what they were. ROCm copies none, and reads them as
/// long as the module is there.
static IMAGES: Mutex<BTreeMap<u64, (usize, Vec<u8>)>> = Mutex::new(BTreeMap::new());

/// Loads an image that is in memory.
fn load_data(module: *mut u64, data: *const c_void) -> Result {
    let bytes = image(data)?;
    load(module, bytes)?;
    // SAFETY: `load` wrote it.
    let module = unsafe { module.read() };
    images().insert(module, (data as usize, bytes.to_vec()));
    Ok(())
}

fn images() -> MutexGuard<'static, BTreeMap<u64, (usize, Vec<u8>)>> {
    IMAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the image is still what it was; if its memory is gone, it is not.
fn is_as_loaded(address: usize, bytes: &[u8]) -> bool {
    let mut now = vec![0; bytes.len()];
    // Not through the address: there may be nothing behind it.
    let read = File::open("/proc/self/mem").and_then(|m| m.read_exact_at(&mut now, address as u64));
    read.is_ok() && now == bytes
}

/// The bytes of an image in memory, whose length its own header says.
fn image<'a>(image: *const c_void) -> Result<&'a [u8]> {
    if image.is_null() {
        return Err(Error::InvalidValue);
    }
    let start = image.cast::<u8>();
    // SAFETY: not null; the caller promised an image, and `image_bytes` reads no further than its
    // headers reach.
    unsafe { Ok(std::slice::from_raw_parts(start, image_bytes(start)?)) }
}

/// Bytes of a code object (ELF) or of a bundle, from its headers.
///
/// # Safety
/// `start` is the start of an image.
unsafe fn image_bytes(start: *const u8) -> Result<usize> {
    // SAFETY: each read lies in a header that what was read before says is there.
    let number = |at: usize, bytes: usize| unsafe {
        let mut value = [0; 8];
        std::ptr::copy_nonoverlapping(start.add(at), value.as_mut_ptr(), bytes);
        u64::from_le_bytes(value) as usize
    };
    const BUNDLE: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";
    let begins = |with: &[u8]| (0..with.len()).all(|i| number(i, 1) == usize::from(with[i]));
    if begins(b"\x7fELF") {
        // The table of sections comes last: its place, the size of an entry, their number.
        let sections = number(0x28, 8) + number(0x3a, 2) * number(0x3c, 2);
        // Or a segment does.
        let segments = (0..number(0x38, 2)).map(|i| {
            let entry = number(0x20, 8) + i * number(0x36, 2);
            number(entry + 8, 8) + number(entry + 0x20, 8)
        });
        return Ok(segments.fold(sections, usize::max));
    }
    if begins(BUNDLE) {
        // Offset, size, and a name with its length, for each.
        let (mut at, mut end) = (BUNDLE.len() + 8, 0);
        for _ in 0..number(BUNDLE.len(), 8) {
            end = end.max(number(at, 8) + number(at + 8, 8));
            at += 24 + number(at + 16, 8);
        }
        return Ok(end.max(at));
    }
    Err(Error::InvalidImage)
}

export! {
    #[doc = "Loads a file."]
    fn hipModuleLoad(module: *mut u64, file: *const c_char) {
        let data = std::fs::read(text(file)?).map_err(|_| Error::FileNotFound)?;
        load(module, &data)
    }

    #[doc = "Loads an image."]
    fn hipModuleLoadData(module: *mut u64, data: *const c_void) {
        load_data(module, data)
    }

    #[doc = "Loads an image; there is nothing for the options to change."]
    fn hipModuleLoadDataEx(
        module: *mut u64,
        data: *const c_void,
        count: c_uint,
        options: *mut c_uint,
        values: *mut *mut c_void,
    ) {
        load_data(module, data)
    }

    #[doc = "Ends a module, once the work of its context is done."]
    fn hipModuleUnload(module: u64) {
        let (context, mark) = {
            let mut d = lock();
            d.modules.get(module)?;
            d.all_to_wait_for()?
        };
        wait(driver(), context, &mark)?;
        if let Some((address, bytes)) = images().remove(&module)
            && !is_as_loaded(address, &bytes)
        {
            let what = format!("the image of module {module:#x} was changed or freed before the module");
            lock().journal.complain(what, None);
        }
        lock().unload(module)
    }

    #[doc = "A kernel by name."]
    fn hipModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) {
        let name = text(name)?;
        put(function, lock().function(module, name)?)
    }

    #[doc = "A variable by name."]
    fn hipModuleGetGlobal(address: *mut u64, bytes: *mut usize, module: u64, name: *const c_char) {
        let (start, len) = lock().variable(module, text(name)?)?;
        put_if(address, start);
        put_if(bytes, len as usize);
        Ok(())
    }

    #[doc = "One of a kernel's properties."]
    fn hipFuncGetAttribute(value: *mut c_int, number: c_uint, function: u64) {
        let mut d = lock();
        let local = if number == 3 { d.kernel(function)?.facts().local } else { 0 };
        let found = d.functions.get(function)?;
        let facts = &found.facts;
        put(value, match number {
            0 => facts.max_threads as c_int,
            1 => facts.shared as c_int,
            2 => 0,
            3 => local as c_int,
            4 => d.registers(function)? as c_int,
            5 | 6 => 90,
            7 => 0,
            8 => found.max_dynamic as c_int,
            9 => -1,
            10..=17 => 0,
            _ => return Err(Error::InvalidValue),
        })
    }

}
