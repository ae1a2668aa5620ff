//! Modules and functions.

use std::ffi::{c_char, c_int, c_uint, c_void};

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::wait;

use crate::call::{driver, export, lock, put, put_if, put_text, text};

/// Loads PTX, or refuses what is none.
fn load(module: *mut u64, image: &[u8]) -> std::result::Result<(), (Error, String)> {
    let mut d = lock();
    d.forbid_unsafe().map_err(|error| (error, error.to_string()))?;
    let loaded = d.load(image).inspect_err(|(_, what)| eprintln!("vgpu: module: {what}"))?;
    put(module, loaded).map_err(|error| (error, error.to_string()))
}

/// The bytes of an image in memory: text has an end; of anything else the start says what it is.
fn image<'a>(image: *const c_void) -> Result<&'a [u8]> {
    if image.is_null() {
        return Err(Error::InvalidValue);
    }
    let start = image.cast::<u8>();
    // SAFETY: not null; the caller promised an image, of which four bytes are always there, or the
    // end of a text before.
    unsafe {
        let magic = std::slice::from_raw_parts(start, 1)[0];
        if magic == 0x7f || magic == 0x50 {
            return Ok(std::slice::from_raw_parts(start, 4));
        }
        Ok(std::ffi::CStr::from_ptr(image.cast()).to_bytes())
    }
}

/// Options of `cuModuleLoadDataEx` that say where words go: info and error, buffer and size.
const LOGS: [(c_uint, c_uint); 2] = [(3, 4), (5, 6)];

/// Writes the words of a refusal where the options want them.
fn log(count: c_uint, options: *mut c_uint, values: *mut *mut c_void, words: [&str; 2]) {
    if options.is_null() || values.is_null() {
        return;
    }
    // SAFETY: not null; the caller promised `count` of each.
    let (options, values) = unsafe {
        (
            std::slice::from_raw_parts(options, count as usize),
            std::slice::from_raw_parts_mut(values, count as usize),
        )
    };
    for ((buffer, size), words) in LOGS.into_iter().zip(words) {
        let at = |wanted| options.iter().position(|option| *option == wanted);
        let (Some(buffer), Some(size)) = (at(buffer), at(size)) else { continue };
        let room = values[size] as usize;
        if put_text(values[buffer].cast(), room, words).is_ok() {
            values[size] = words.len().min(room) as *mut c_void;
        }
    }
}

export! {
    #[doc = "Loads a file."]
    fn cuModuleLoad(module: *mut u64, file: *const c_char) {
        let data = std::fs::read(text(file)?).map_err(|_| Error::FileNotFound)?;
        load(module, &data).map_err(|(error, _)| error)
    }

    #[doc = "Loads an image."]
    fn cuModuleLoadData(module: *mut u64, data: *const c_void) {
        load(module, image(data)?).map_err(|(error, _)| error)
    }

    #[doc = "Loads a fat binary, which is refused."]
    fn cuModuleLoadFatBinary(module: *mut u64, data: *const c_void) {
        load(module, image(data)?).map_err(|(error, _)| error)
    }

    #[doc = "Loads an image; of the options, those for words are heard."]
    fn cuModuleLoadDataEx(
        module: *mut u64,
        data: *const c_void,
        count: c_uint,
        options: *mut c_uint,
        values: *mut *mut c_void,
    ) {
        match load(module, image(data)?) {
            Ok(()) => {
                log(count, options, values, ["", ""]);
                Ok(())
            }
            Err((error, what)) => {
                log(count, options, values, ["", &what]);
                Err(error)
            }
        }
    }

    #[doc = "Ends a module, once the work of its context is done."]
    fn cuModuleUnload(module: u64) {
        let (context, mark) = {
            let mut d = lock();
            d.modules.get(module)?;
            d.all_to_wait_for()?
        };
        wait(driver(), context, &mark)?;
        lock().unload(module)
    }

    #[doc = "When code is loaded: at once."]
    fn cuModuleGetLoadingMode(mode: *mut c_uint) {
        put(mode, 1)
    }

    #[doc = "A kernel by name."]
    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) {
        let name = text(name)?;
        put(function, lock().function(module, name)?)
    }

    #[doc = "A variable by name."]
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: u64, name: *const c_char) {
        let (start, len) = lock().variable(module, text(name)?)?;
        put_if(address, start);
        put_if(bytes, len as usize);
        Ok(())
    }

    #[doc = "The module of a kernel."]
    fn cuFuncGetModule(module: *mut u64, function: u64) {
        put(module, lock().functions.get(function)?.module)
    }

    #[doc = "One of a kernel's properties."]
    fn cuFuncGetAttribute(value: *mut c_int, number: c_uint, function: u64) {
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
            5 | 6 => 80,
            7 => 0,
            8 => found.max_dynamic as c_int,
            9 => -1,
            10..=17 => 0,
            _ => return Err(Error::InvalidValue),
        })
    }

    #[doc = "Shared memory that launches may ask for; other properties are wishes."]
    fn cuFuncSetAttribute(function: u64, number: c_uint, value: c_int) {
        let mut d = lock();
        d.functions.get(function)?;
        match number {
            8 => d.set_max_dynamic(function, u32::try_from(value).map_err(|_| Error::InvalidValue)?),
            9 => Ok(()),
            _ => Err(Error::InvalidValue),
        }
    }

    #[doc = "A wish, which is heard and no more."]
    fn cuFuncSetCacheConfig(function: u64, config: c_uint) {
        lock().functions.get(function).map(|_| ())
    }
}
